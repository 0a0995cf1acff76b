"""What an hour of bike rentals must be: the one truth about its columns."""

import pandera.polars as pa
import polars as pl
from pandera.polars import Field

_Utc = pl.Datetime("us", "UTC")


class RentalHour(pa.DataFrameModel):
    """One hour of Washington's bike rentals: the raw columns, then the derived one."""

    instant: pl.Int64 = Field(ge=1, description="Number of the record.")
    dteday: pl.String = Field(str_matches=r"\d{4}-\d{2}-\d{2}", description="Local date.")
    season: pl.Int64 = Field(ge=1, le=4, title="Season", description="1 spring, 2 summer, 3 autumn, 4 winter.")
    yr: pl.Int64 = Field(ge=0, description="Years since 2011.")
    mnth: pl.Int64 = Field(ge=1, le=12, description="Month.")
    hr: pl.Int64 = Field(ge=0, le=23, title="Hour", description="Hour of the day, local time.")
    holiday: pl.Int64 = Field(ge=0, le=1, title="Holiday", description="1: a public holiday of Washington.")
    weekday: pl.Int64 = Field(ge=0, le=6, title="Day of the week", description="0 is Sunday.")
    workingday: pl.Int64 = Field(ge=0, le=1, title="Working day", description="1: neither week-end nor holiday.")
    weathersit: pl.Int64 = Field(
        ge=1, le=4, title="Weather", description="1 clear, 2 mist, 3 light, 4 heavy rain or snow."
    )
    temp: pl.Float64 = Field(ge=0, le=1, title="Temperature", description="(t + 8) / 47, t in degrees Celsius.")
    atemp: pl.Float64 = Field(ge=0, le=1, title="Felt temperature", description="(t + 16) / 66, t in degrees Celsius.")
    hum: pl.Float64 = Field(ge=0, le=1, title="Humidity", description="Relative humidity, a share.")
    windspeed: pl.Float64 = Field(ge=0, le=1, title="Wind", description="Wind speed over 67.")
    casual: pl.Int64 = Field(ge=0, description="Rentals by users without a subscription.")
    registered: pl.Int64 = Field(ge=0, description="Rentals by subscribers.")
    cnt: pl.Float64 = Field(ge=0, title="Rentals", description="Rentals in the hour: casual and registered together.")

    hour_at: _Utc = Field(title="Hour", description="Start of the hour; the local wall clock is taken as UTC.")

    @pa.dataframe_check
    def counts_add_up(cls, data: pa.PolarsData) -> pl.LazyFrame:
        """Casual and registered rentals make up the count."""
        return data.lazyframe.select(pl.col("casual") + pl.col("registered") == pl.col("cnt"))
