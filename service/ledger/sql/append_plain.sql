-- What most joins are: the next entry of live tokens that exist, and no claim, secret or bot that comes or goes with it. It
-- does what append.sql would do, without the parts that have nothing to do and the columns that such an entry can't
-- change: starting and carrying them costs more than a row. Arrays that are shorter, as they say nothing, cost nothing.
WITH done AS (
    UPDATE stream s SET version = j.last_version, instance_id = j.instance_id
    FROM unnest($1::uuid[], $2::int8[], $3::int8[], $4::int8[], $5::uuid[], $6::timestamptz[], $7::text[], $8::uuid[],
                $9::bool[], $10::text[]) WITH ORDINALITY
        AS j(stream_id, first_version, last_version, fence, instance_id, recorded_at, envelope, attempt, begins_lineage,
             state, ord)
    WHERE s.stream_id = j.stream_id AND s.version = j.first_version - 1 AND s.fence = j.fence
        AND $11::timestamptz = pg_postmaster_start_time()
    RETURNING j.ord, j.stream_id, j.first_version, j.last_version, j.instance_id, j.recorded_at, j.envelope, j.attempt,
        j.begins_lineage, j.state
), entries AS (
    INSERT INTO entry (stream_id, first_version, last_version, stream_kind, recorded_at, envelope, attempt)
    SELECT stream_id, first_version, last_version, 'token', recorded_at, envelope, attempt FROM done
), notes AS (
    INSERT INTO outbox (stream_ids, first_versions)
    SELECT array_agg(stream_id), array_agg(first_version) FROM done HAVING count(*) > 0
), lineages AS (
    INSERT INTO lineage (instance_id, stream_id) SELECT instance_id, stream_id FROM done WHERE begins_lineage
), snapshots AS (
    UPDATE snapshot p SET version = done.last_version, state = done.state
    FROM done WHERE done.state IS NOT NULL AND p.stream_id = done.stream_id
)
-- One row: a driver takes longer over rows than over what is in them.
SELECT coalesce(array_agg(ord), '{}') AS "ords!" FROM done
