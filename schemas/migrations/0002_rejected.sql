-- What could not be stored, with its reason and its place in the log. Written again by a settled batch without harm:
-- the same position replaces itself.
CREATE TABLE IF NOT EXISTS {database}.rejected
(
    topic_id    LowCardinality(String),
    partition   UInt32,
    offset      UInt64,
    row         UInt32,
    log_time    DateTime64(3, 'UTC'),
    kind        LowCardinality(String),
    route       LowCardinality(String),
    reason      LowCardinality(String),
    project     LowCardinality(String),
    environment LowCardinality(String),
    app_name    String,
    feature     String,
    payload     String CODEC(ZSTD(1)),
    received    Date,
    written     Date MATERIALIZED today()
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(received)
ORDER BY (topic_id, partition, offset, row)
TTL written + INTERVAL {marker_days} DAY
SETTINGS non_replicated_deduplication_window = {window},
         fsync_after_insert = 1,
         fsync_part_directory = 1
