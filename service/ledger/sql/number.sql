-- Numbers the notes that are in the outbox, if nobody else is doing so: see sequencer.rs.
WITH seat AS MATERIALIZED (
    SELECT next_index FROM sequencer WHERE EXISTS (SELECT FROM outbox) FOR UPDATE SKIP LOCKED
), taken AS (
    DELETE FROM outbox
    WHERE position IN (SELECT position FROM outbox ORDER BY position LIMIT $1) AND EXISTS (SELECT FROM seat)
    RETURNING position, stream_id, first_version
), numbered AS (
    INSERT INTO log_entry (log_index, stream_id, first_version)
    SELECT (SELECT next_index FROM seat) - 1 + row_number() OVER (ORDER BY position), stream_id, first_version FROM taken
    RETURNING log_index
), moved AS (
    UPDATE sequencer SET next_index = next_index + (SELECT count(*) FROM numbered), holder = $2, heartbeat = $3
    WHERE EXISTS (SELECT FROM numbered)
)
SELECT coalesce((SELECT next_index FROM seat), (SELECT next_index FROM sequencer)) AS "first!",
    (SELECT count(*) FROM numbered) AS "entries!"
