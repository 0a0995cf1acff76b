"""What ``feast`` finds here: the objects projected from every pipeline's description."""

from ferroflow.adapters.feast.project import all_objects
from ferroflow.adapters.home import Home
from ferroflow.adapters.pipelines import load, names
from ferroflow.adapters.settings import load_settings

_home = Home.of(load_settings())
_home.feature_registry.parent.mkdir(parents=True, exist_ok=True)

# Feast looks at a module's attributes: each object has to be one.
globals().update({f"{type(e).__name__}_{e.name}": e for e in all_objects([load(name) for name in names()], _home)})
