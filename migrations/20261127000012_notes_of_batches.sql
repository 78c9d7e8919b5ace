-- A note for each append statement in place of one for each entry: appends that were grouped leave one row, one index entry
-- and one row to take away again.
ALTER TABLE outbox ADD COLUMN stream_ids uuid[], ADD COLUMN first_versions bigint[];
UPDATE outbox SET stream_ids = ARRAY[stream_id], first_versions = ARRAY[first_version];
ALTER TABLE outbox DROP COLUMN stream_id, DROP COLUMN first_version,
    ALTER COLUMN stream_ids SET NOT NULL, ALTER COLUMN first_versions SET NOT NULL;
-- Notes are never compressed or moved out: the largest usual one, of 256 entries, fits into its page.
ALTER TABLE outbox SET (toast_tuple_target = 8160, autovacuum_vacuum_threshold = 500);

-- The index of attempts held 64 hex characters of each, beside the stream. Half of a SHA-256 tells attempts of one stream
-- apart as well as the whole; the envelope keeps the whole.
ALTER TABLE entry ALTER COLUMN attempt TYPE uuid USING right(attempt, 32)::uuid;

-- Nobody looks for rows by these, and counting them is most of what ANALYZE takes.
ALTER TABLE entry ALTER COLUMN envelope SET STATISTICS 0;
ALTER TABLE snapshot ALTER COLUMN state SET STATISTICS 0;
ALTER TABLE instance_view ALTER COLUMN latest SET STATISTICS 0;
ALTER TABLE outbox ALTER COLUMN stream_ids SET STATISTICS 0, ALTER COLUMN first_versions SET STATISTICS 0;
