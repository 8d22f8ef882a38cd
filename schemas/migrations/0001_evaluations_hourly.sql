-- Hourly counts: one row for each (flag, variant, hour, app, platform); batch markers live here too.
-- `received` is the day of log time of the batch's first record, the same for all rows of an insert, so that one
-- insert is one part. The deduplication window makes insert tokens a fence against late writers; the two fsync
-- settings keep the token log and the part together over a power loss.
-- Names that many rows share are LowCardinality: a record of 2 MiB can give 300,000 rows with names of a kilobyte, which
-- must still be one insert of far less than 256 MB.
-- Markers live from the day they were written, by the server's clock: a log that stood still for two months would
-- otherwise give markers that are too old on arrival.
CREATE TABLE IF NOT EXISTS {database}.evaluations_hourly
(
    project     LowCardinality(String),
    environment LowCardinality(String),
    feature     LowCardinality(String),
    variable    LowCardinality(String),
    variant     String,
    hour        DateTime64(0, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    app_name    LowCardinality(String),
    platform    LowCardinality(String),
    sdk_type    LowCardinality(String),
    source      LowCardinality(String),
    received    Date,
    yes         UInt64 CODEC(T64, ZSTD(1)),
    no          UInt64 CODEC(T64, ZSTD(1)),
    count       UInt64 CODEC(T64, ZSTD(1)),
    written     Date MATERIALIZED today(),
    INDEX hour_minmax hour TYPE minmax GRANULARITY 1,
    PROJECTION daily
    (
        SELECT project, environment, feature, variable, variant, date_trunc('day', hour),
               app_name, platform, sdk_type, source, sum(yes), sum(no), sum(count)
        GROUP BY project, environment, feature, variable, variant, date_trunc('day', hour),
                 app_name, platform, sdk_type, source
    )
)
ENGINE = SummingMergeTree((yes, no, count))
PARTITION BY toYYYYMM(received)
ORDER BY (project, environment, feature, variable, variant, hour, app_name, platform, sdk_type, source)
TTL written + INTERVAL {marker_days} DAY DELETE WHERE project = '__batch__'
SETTINGS non_replicated_deduplication_window = {window},
         fsync_after_insert = 1,
         fsync_part_directory = 1,
         deduplicate_merge_projection_mode = 'rebuild'
