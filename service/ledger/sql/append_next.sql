-- What most joins are: the next entry of live tokens that exist, and no claim or secret that comes or goes with it. It
-- does what append.sql would do, without the parts that have nothing to do and the columns that such an entry can't
-- change: starting and carrying them costs more than a row.
WITH done AS (
    UPDATE stream s SET version = j.last_version, bot_id = j.bot_id, instance_id = j.instance_id
    FROM unnest($1::int8[], $2::uuid[], $3::int8[], $4::int8[], $5::int8[], $6::uuid[], $7::uuid[], $8::text[],
                $9::timestamptz[], $10::text[], $11::text[], $12::uuid[], $13::timestamptz[])
        AS j(ord, stream_id, first_version, last_version, fence, bot_id, instance_id, state,
             recorded_at, envelope, attempt, lineage, server)
    WHERE s.stream_id = j.stream_id AND s.version = j.first_version - 1 AND s.fence = j.fence
        AND j.server = pg_postmaster_start_time()
    RETURNING j.ord, j.stream_id, j.first_version, j.last_version, j.state, j.recorded_at, j.envelope,
        j.attempt, j.lineage
), entries AS (
    INSERT INTO entry (stream_id, first_version, last_version, stream_kind, recorded_at, envelope, attempt)
    SELECT stream_id, first_version, last_version, 'token', recorded_at, envelope, attempt FROM done
), notes AS (
    INSERT INTO outbox (stream_id, first_version) SELECT stream_id, first_version FROM done ORDER BY ord
), lineages AS (
    INSERT INTO lineage (instance_id, stream_id) SELECT lineage, stream_id FROM done WHERE lineage IS NOT NULL
), snapshots AS (
    UPDATE snapshot p SET version = done.last_version, state = done.state
    FROM done WHERE done.state IS NOT NULL AND p.stream_id = done.stream_id
)
SELECT ord AS "ord!", pg_postmaster_start_time() AS "server!" FROM done
