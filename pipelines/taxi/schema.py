"""What a green-taxi trip must be: the one truth about its columns.

Types drift between the published months (Int64 and Int32, Int64 and Float64, Null and Float64): the types here win, and
are chosen so that no month loses a value. Only what makes a row useless for trip duration is refused: fares may be
negative (refunds) and distances zero (no meter reading), as they are in one trip out of thirty.
"""

from datetime import UTC, datetime

import pandera.polars as pa
import polars as pl
from pandera.polars import Field

_WallClock = pl.Datetime("us")
_Utc = pl.Datetime("us", "UTC")
_FIRST = datetime(2013, 8, 1, tzinfo=UTC)  # the first green taxis; earlier dates are clocks that were never set
_LAST = datetime(2100, 1, 1, tzinfo=UTC)


class GreenTrip(pa.DataFrameModel):
    """One trip of a New York green taxi: the raw columns, then the derived ones."""

    VendorID: pl.Int64 = Field(nullable=True, description="Provider of the record (1 or 2).")
    lpep_pickup_datetime: _WallClock = Field(description="When the meter was engaged, New York wall clock.")
    lpep_dropoff_datetime: _WallClock = Field(description="When the meter was disengaged, New York wall clock.")
    store_and_fwd_flag: pl.String = Field(nullable=True, description="Y: held in the vehicle before it was sent.")
    RatecodeID: pl.Float64 = Field(nullable=True, description="Rate in effect at the end of the trip (99: unknown).")
    PULocationID: pl.Int64 = Field(ge=1, le=265, title="Pick-up zone", description="Taxi zone of the pick-up (1–265).")
    DOLocationID: pl.Int64 = Field(ge=1, le=265, title="Drop-off zone", description="Taxi zone asked for (1–265).")
    passenger_count: pl.Float64 = Field(nullable=True, description="Passengers, as entered by the driver.")
    trip_distance: pl.Float64 = Field(ge=0, le=200, title="Distance", description="Length of the trip in miles.")
    fare_amount: pl.Float64 = Field(nullable=True, description="Time-and-distance fare, dollars.")
    extra: pl.Float64 = Field(nullable=True, description="Rush-hour and night extras, dollars.")
    mta_tax: pl.Float64 = Field(nullable=True, description="Tax, dollars.")
    tip_amount: pl.Float64 = Field(nullable=True, description="Credit-card tip, dollars.")
    tolls_amount: pl.Float64 = Field(nullable=True, description="Tolls, dollars.")
    ehail_fee: pl.Float64 = Field(nullable=True, description="Fee of a hail by application, dollars.")
    improvement_surcharge: pl.Float64 = Field(nullable=True, description="Surcharge at the flag drop, dollars.")
    total_amount: pl.Float64 = Field(nullable=True, description="All that was paid, cash tips excepted, dollars.")
    payment_type: pl.Float64 = Field(nullable=True, description="How it was paid (1 card, 2 cash, …).")
    trip_type: pl.Float64 = Field(nullable=True, description="1: hailed in the street, 2: dispatched.")
    congestion_surcharge: pl.Float64 = Field(nullable=True, description="Congestion surcharge, dollars.")

    pickup_at: _Utc = Field(ge=_FIRST, lt=_LAST, title="Pick-up time", description="When the trip starts.")
    dropoff_at: _Utc = Field(ge=_FIRST, lt=_LAST, description="When the trip ended, UTC.")
    duration_minutes: pl.Float64 = Field(
        in_range={"min_value": 1, "max_value": 60}, title="Duration", description="Length of the trip in minutes."
    )
    borough: pl.String = Field(description="Borough of the pick-up zone, by the zone look-up.")
