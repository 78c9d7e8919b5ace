-- Numbers the notes that are in the outbox, if nobody else is doing so: see sequencer.rs.
WITH seat AS MATERIALIZED (
    SELECT next_index, h.horizon
    -- On another server, where a dump was restored, transactions count anew.
    FROM sequencer s, LATERAL (
        SELECT CASE WHEN s.horizon_of = (SELECT system_identifier FROM pg_control_system())
            AND s.horizon <= pg_snapshot_xmin(pg_current_snapshot()) THEN s.horizon ELSE '0' END AS horizon
    ) h
    WHERE EXISTS (SELECT FROM outbox WHERE xid >= h.horizon) FOR UPDATE OF s SKIP LOCKED
), found AS MATERIALIZED (
    -- Until they have so many entries.
    SELECT place, entries FROM (
        SELECT place, entries, sum(entries) OVER (ORDER BY position) - entries AS before FROM (
            SELECT ctid AS place, position, cardinality(stream_ids) AS entries
            FROM outbox WHERE xid >= (SELECT horizon FROM seat) ORDER BY position LIMIT $1
        ) notes
    ) notes WHERE before < $1
), taken AS (
    -- By their place, which nobody else gets while this statement can see them.
    DELETE FROM outbox WHERE ctid = ANY (ARRAY(SELECT place FROM found)) RETURNING position, stream_ids, first_versions
), numbered AS (
    INSERT INTO log_entry (log_index, stream_id, first_version)
    SELECT (SELECT next_index FROM seat) - 1 + row_number() OVER (ORDER BY position, place), e.stream_id, e.first_version
    FROM taken, unnest(stream_ids, first_versions) WITH ORDINALITY AS e(stream_id, first_version, place)
    RETURNING log_index, stream_id, first_version
), moved AS (
    UPDATE sequencer SET next_index = next_index + (SELECT count(*) FROM numbered), holder = $2, heartbeat = $3,
        -- What this statement sees of all transactions that had ended is numbered now, unless there was more than it looked
        -- at. What it found counts, not what it took: another step may have taken the beginning since.
        horizon = CASE WHEN (SELECT sum(entries) FROM found) < $1 THEN pg_snapshot_xmin(pg_current_snapshot())
            ELSE (SELECT horizon FROM seat) END,
        horizon_of = (SELECT system_identifier FROM pg_control_system())
    WHERE EXISTS (SELECT FROM numbered)
)
SELECT coalesce((SELECT next_index FROM seat), (SELECT next_index FROM sequencer)) AS "first!",
    coalesce(array_agg(stream_id ORDER BY log_index), '{}') AS "stream_ids!",
    coalesce(array_agg(first_version ORDER BY log_index), '{}') AS "first_versions!", pg_postmaster_start_time() AS "server!"
FROM numbered
