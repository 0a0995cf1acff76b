"""Trip duration of New York green taxis: the table of contents of this pipeline."""

from __future__ import annotations

from datetime import UTC, datetime

from ferroflow.core.spec import (
    MLP,
    Baseline,
    BeatsBaseline,
    BeatsChampion,
    Boosting,
    ByTime,
    InputDrift,
    Known,
    LikeBefore,
    MonthlyFiles,
    NoWorseSlice,
    Performance,
    PipelineSpec,
    Reference,
    Regression,
    Retrain,
    RowCount,
    Schedules,
    Skew,
    Source,
    SourceFile,
    Staleness,
    TabM,
    TargetEncoding,
    Tuning,
)
from pipelines.taxi.derive import derive
from pipelines.taxi.features import TIMEZONE, trip_clock, zone_day, zone_hour, zone_week
from pipelines.taxi.schema import GreenTrip

_PUBLISHED = "https://d37ci6vzurychx.cloudfront.net"
_KNOWN_AFTERWARDS = (
    "dropoff_at",
    "lpep_dropoff_datetime",
    "fare_amount",
    "extra",
    "mta_tax",
    "tip_amount",
    "tolls_amount",
    "ehail_fee",
    "improvement_surcharge",
    "total_amount",
    "payment_type",
    "congestion_surcharge",
)

pipeline = PipelineSpec(
    name="taxi",
    description="How long a New York green-taxi trip will take, in minutes.",
    source=Source(
        files=MonthlyFiles(
            url=f"{_PUBLISHED}/trip-data/green_tripdata_{{year}}-{{month:02}}.parquet",
            mirror="nyc_tlc_green/green_tripdata_{year}-{month:02}.parquet",
            first=datetime(2023, 1, 1, tzinfo=UTC),
        ),
        format="parquet",
        time="pickup_at",
        timezone=TIMEZONE,
        history="92d",
        simulator="pipelines.taxi.simulator:simulate",
    ),
    references=(
        Reference(
            name="zones",
            file=SourceFile(f"{_PUBLISHED}/misc/taxi_zone_lookup.csv", "nyc_tlc_green/taxi_zone_lookup.csv"),
        ),
    ),
    derive=derive,
    schema=GreenTrip,
    rules=(
        RowCount(at_least=1_000),
        Known(column="DOLocationID", reference="zones", key="LocationID", at_least=0.99),
        LikeBefore(columns=("PULocationID", "DOLocationID", "trip_distance"), severity="warning"),
    ),
    inputs=("PULocationID", "DOLocationID", "pickup_at", "trip_distance"),
    categorical=("PULocationID", "DOLocationID"),
    features=(trip_clock, zone_hour, zone_day, zone_week),
    encodings=(
        TargetEncoding(("PULocationID", "DOLocationID")),
        TargetEncoding(("PULocationID",)),
        TargetEncoding(("DOLocationID",)),
    ),
    target=Regression("duration_minutes", known_at="dropoff_at", known_with=_KNOWN_AFTERWARDS),
    candidates=(Boosting(), MLP(), TabM()),
    baseline=Baseline(by=("PULocationID", "DOLocationID")),
    split=ByTime(train="31d", validation="28d", test="31d"),  # wall-clock days: January, February, March
    tuning=Tuning(trials=12, seconds=60),
    gates=(BeatsBaseline(), BeatsChampion(confidence=0.95), NoWorseSlice("borough")),
    monitors=(InputDrift(), Performance(window="12h"), Staleness("35d"), Skew()),
    retrain=Retrain(
        cooldown="6h",
        per_week=3,
        min_new_rows=5_000,
        window="60d",
        validation="2d",
        holdout="6h",
        half_life="8d",
    ),
    schedules=Schedules(ingest="0 4 * * *", monitor="0 * * * *"),
    as_of=datetime(2023, 4, 1, 4, tzinfo=UTC),  # midnight in New York
    owner="ferroflow",
)
