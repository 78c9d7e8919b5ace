-- A token is read by few rows also before anybody has counted the tables: after a restore, and while a new fleet comes in.

-- Only locks have a target; the rest of the streams made this index as large as the table is long.
DROP INDEX stream_locks;
CREATE INDEX stream_locks ON stream (lock_target) WHERE live AND lock_target IS NOT NULL;

-- With the namespace, so that the keys of a token are not looked for among all keys.
DROP INDEX claim_of_stream;
CREATE INDEX claim_of_stream ON claim (stream_id, namespace);
