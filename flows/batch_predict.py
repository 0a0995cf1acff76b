"""The flow ``batch-predict``: a file or snapshot in, a file with predictions out."""

from __future__ import annotations

from datetime import datetime

from prefect import flow

from flows.run import Run
from tasks import watch as tasks


@flow(name="batch-predict", flow_run_name="predict for {pipeline}", persist_result=True, result_serializer="json")
def batch_predict(pipeline: str, rows: str, as_of: datetime | None = None) -> str:
    """Predict each row by the champion, with the same features as the endpoint; gives the path of the Parquet file.

    Args:
        pipeline: its folder's name below pipelines/.
        rows: a Parquet or CSV file with the fields of a request, on the worker's disk; or, where there is no such
            file, the fingerprint (or its beginning) of a snapshot, whose accepted rows are predicted.
        as_of: the clock where rows have no event time (UTC unless an offset is given). Empty: the pipeline's
            clock, which is the present hour, or in a replay the hour that the predictions have come to.
    """
    run = Run(pipeline, as_of)
    return str(run(tasks.predict, rows, run.as_of))
