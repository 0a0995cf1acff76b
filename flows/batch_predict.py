"""The flow ``batch-predict``: a file in, a file with predictions out."""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from flows.run import Run
from tasks import watch as tasks


@flow(name="batch-predict", flow_run_name="predict for {pipeline}", persist_result=True, result_serializer="json")
def batch_predict(pipeline: str, rows: str) -> str:
    """Predict each row by the champion, with the same features as the endpoint; gives the path of the Parquet file.

    Args:
        pipeline: its folder's name below pipelines/.
        rows: a Parquet or CSV file with the fields of a request, on the worker's disk.
    """
    run = Run(pipeline, None)
    return str(run(tasks.predict, Path(rows), run.now))
