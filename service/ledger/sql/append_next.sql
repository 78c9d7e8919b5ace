-- What most joins are: the next entry of streams that exist, and no claim or secret that comes or goes with it. It does
-- what append.sql would do, without the parts that have nothing to do: starting them costs more than a row.
WITH j AS MATERIALIZED (
    SELECT * FROM unnest($1::int8[], $2::uuid[], $3::text[], $4::int8[], $5::int8[], $6::int8[], $7::text[], $8::bool[],
                         $9::uuid[], $10::uuid[], $11::text[], $12::timestamptz[], $13::text[],
                         $14::timestamptz[], $15::text[], $16::text[])
        AS j(ord, stream_id, kind, first_version, last_version, fence, name, live,
             bot_id, instance_id, lock_target, expires_at, state,
             recorded_at, envelope, attempt)
), done AS (
    UPDATE stream s SET version = j.last_version, name = j.name, live = j.live, bot_id = j.bot_id,
        instance_id = j.instance_id, lock_target = j.lock_target, expires_at = j.expires_at, state = j.state
    FROM j
    WHERE s.stream_id = j.stream_id AND s.version = j.first_version - 1 AND s.fence = j.fence
    RETURNING j.ord, j.stream_id, j.first_version, j.last_version, j.kind, j.recorded_at, j.envelope, j.attempt
), entries AS (
    INSERT INTO entry (stream_id, first_version, last_version, stream_kind, recorded_at, envelope, attempt)
    SELECT stream_id, first_version, last_version, kind, recorded_at, envelope, attempt FROM done
), notes AS (
    INSERT INTO outbox (stream_id, first_version) SELECT stream_id, first_version FROM done ORDER BY ord
)
SELECT ord AS "ord!" FROM done
