"""The documentation page: one self-contained page that draws ``/openapi.json``; it loads nothing from elsewhere."""

from __future__ import annotations

HEADERS = (
    (
        "content-security-policy",
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:",
    ),
    ("x-content-type-options", "nosniff"),
)

_STYLE = """
:root { color-scheme: light dark; --ink: #1d232b; --soft: #5b6673; --line: #dfe4ea; --ground: #f6f7f9; --card: #fff;
  --accent: #b4451f; --get: #2563a8; --code: #f1f3f6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7eaee; --soft: #9aa5b1; --line: #2c333c; --ground: #14181d;
  --card: #1b2027; --accent: #f08a5d; --get: #7db4ee; --code: #12161b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.55 system-ui, sans-serif; }
header, main { max-width: 60rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2.5rem; }
h1 { font-size: 1.7rem; margin: 0; letter-spacing: -.01em; }
h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
p { margin: .3rem 0; } a { color: var(--get); } .soft { color: var(--soft); }
details { background: var(--card); border: 1px solid var(--line); border-radius: 10px; margin: .55rem 0; }
summary { cursor: pointer; padding: .7rem .9rem; display: flex; gap: .8rem; align-items: baseline; flex-wrap: wrap; }
.verb { font: 700 .75rem/1 ui-monospace, monospace; color: #fff; background: var(--accent); border-radius: 5px;
  padding: .3rem .45rem; } .verb.get { background: var(--get); }
.path { font: 600 .95rem ui-monospace, monospace; }
.in { padding: .2rem .9rem 1rem; border-top: 1px solid var(--line); }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1rem; font-size: .92rem; }
th { text-align: left; color: var(--soft); font-weight: 600; } th, td { padding: .35rem .7rem .35rem 0;
  border-bottom: 1px solid var(--line); vertical-align: top; }
td:first-child { font-family: ui-monospace, monospace; }
h3 { font-size: .8rem; text-transform: uppercase; letter-spacing: .05em; color: var(--soft); margin: 1rem 0 .2rem; }
textarea, pre { width: 100%; background: var(--code); color: var(--ink); border: 1px solid var(--line);
  border-radius: 8px; padding: .7rem; font: .85rem/1.5 ui-monospace, monospace; overflow: auto; }
textarea { min-height: 13rem; resize: vertical; }
button { background: var(--accent); color: #fff; border: 0; border-radius: 7px; padding: .5rem 1rem; font: inherit;
  font-weight: 600; cursor: pointer; margin: .4rem 0; } button:focus-visible { outline: 2px solid var(--ink); }
.wide { overflow-x: auto; }
"""

_SCRIPT = """
const make = (tag, text, cls) => { const e = document.createElement(tag); if (text != null) e.textContent = text;
  if (cls) e.className = cls; return e; };
const bounds = f => [f.enum && 'one of ' + f.enum.slice(0, 12).map(v => JSON.stringify(v)).join(', ')
  + (f.enum.length > 12 ? ', …' : ''), f.minimum != null && 'from ' + f.minimum, f.maximum != null && 'to ' + f.maximum,
  f.format].filter(Boolean).join(' ');
const table = schema => { const t = make('table'), head = make('tr');
  ['Field', 'Type', 'Takes', 'Meaning'].forEach(n => head.append(make('th', n))); t.append(head);
  for (const [name, f] of Object.entries(schema.properties)) { const row = make('tr');
    const cells = [name, [].concat(f.type || 'any').join(' or '), bounds(f), f.description || ''];
    cells.forEach(v => row.append(make('td', v))); t.append(row); }
  const wide = make('div', null, 'wide'); wide.append(t); return wide; };
const attempt = (path, verb, body) => { const box = make('div'), out = make('pre'); out.hidden = true;
  let text = null; if (body != null) { text = make('textarea', JSON.stringify(body, null, 2)); text.spellcheck = false;
    text.setAttribute('aria-label', 'Request body of ' + path); box.append(make('h3', 'Request'), text); }
  const button = make('button', 'Send'); button.onclick = async () => { out.hidden = false; out.textContent = '…';
    try { const answer = await fetch(path, verb === 'post' ? {method: 'POST', body: text.value,
        headers: {'content-type': 'application/json'}} : {}); const raw = await answer.text(); let shown = raw;
      try { shown = JSON.stringify(JSON.parse(raw), null, 2); } catch (e) { /* plain text */ }
      out.textContent = answer.status + ' ' + answer.statusText + '\\n' + shown;
    } catch (e) { out.textContent = 'No answer: ' + e.message; } };
  box.append(button, out); return box; };
const operation = (doc, path, verb, op) => {
  const d = make('details'), s = make('summary'), inner = make('div', null, 'in');
  s.append(make('span', verb.toUpperCase(), 'verb ' + verb), make('span', path, 'path'));
  s.append(make('span', op.summary, 'soft'));
  const media = op.requestBody && op.requestBody.content['application/json'];
  if (media) { let item = Object.values(media.schema.properties)[0].items;
    if (item.$ref) item = doc.components.schemas[item.$ref.split('/').pop()];
    inner.append(make('h3', 'A row'), table(item)); }
  if (!path.includes('{')) inner.append(attempt(path, verb, media ? media.example : null));
  inner.append(make('h3', 'Answers'));
  for (const [code, r] of Object.entries(op.responses)) inner.append(make('p', code + '  ' + r.description, 'soft'));
  d.append(s, inner); return d; };
(async () => { const main = document.querySelector('main');
  try { const doc = await (await fetch('/openapi.json')).json(), groups = {};
    document.querySelector('#about').textContent = doc.info.description;
    for (const [path, verbs] of Object.entries(doc.paths)) for (const [verb, op] of Object.entries(verbs))
      (groups[op.tags[0]] ||= []).push(operation(doc, path, verb, op));
    for (const [name, operations] of Object.entries(groups)) main.append(make('h2', name), ...operations);
  } catch (e) { main.append(make('p', 'The description cannot be read: ' + e.message)); }
  document.body.dataset.ready = 'yes'; })();
"""

HTML = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Ferroflow predictions</title><link rel="icon" href="data:,"><style>{_STYLE}</style></head>
<body><header><h1>Ferroflow predictions</h1><p id="about" class="soft"></p>
<p class="soft">Typed by each pipeline's contract. The document itself: <a href="/openapi.json">/openapi.json</a></p>
</header><main></main><script>{_SCRIPT}</script></body></html>
"""
