-- Moves the guard rows that are at the expected version and fence on the expected server, begins new streams, and stores
-- everything that belongs to those that succeeded, and to no other.
--
-- All parts share one snapshot. A conflicting writer is waited for at the guard row, whose version and fence are then
-- checked as it left them. A claim that is taken fails the whole statement, and so does a key that is locked.
--
-- Guard rows are taken in the order of the arrays, which is the order of stream ids: two statements never wait for
-- each other in a circle. History tells the entries by `ord`, the order in which they were asked for.
WITH j AS MATERIALIZED (
    SELECT * FROM unnest($1::int8[], $2::uuid[], $3::text[], $4::int8[], $5::int8[], $6::int8[], $7::text[], $8::bool[],
                         $9::uuid[], $10::uuid[], $11::text[], $12::timestamptz[], $13::text[],
                         $14::timestamptz[], $15::text[], $16::uuid[], $17::uuid[], $30::timestamptz[])
        AS j(ord, stream_id, kind, first_version, last_version, fence, name, live,
             bot_id, instance_id, lock_target, expires_at, state,
             recorded_at, envelope, attempt, lineage, server)
), claimed AS MATERIALIZED (
    SELECT * FROM unnest($18::int8[], $19::text[], $20::text[], $21::bool[]) AS c(ord, namespace, value, unlocked)
), moved AS (
    UPDATE stream s SET version = j.last_version, name = j.name, live = j.live, bot_id = j.bot_id,
        instance_id = j.instance_id, lock_target = j.lock_target, expires_at = j.expires_at
    FROM j
    WHERE j.first_version > 1 AND s.stream_id = j.stream_id AND s.version = j.first_version - 1 AND s.fence = j.fence
        AND j.server = pg_postmaster_start_time()
    RETURNING j.ord
), begun AS (
    INSERT INTO stream (stream_id, kind, version, fence, name, live, bot_id, instance_id, lock_target, expires_at)
    SELECT stream_id, kind, last_version, fence, name, live, bot_id, instance_id, lock_target, expires_at FROM j
    WHERE first_version = 1
    ON CONFLICT (stream_id) DO NOTHING
    RETURNING stream_id
), done AS MATERIALIZED (
    SELECT ord FROM moved UNION ALL SELECT j.ord FROM begun JOIN j USING (stream_id)
), entries AS (
    INSERT INTO entry (stream_id, first_version, last_version, stream_kind, recorded_at, envelope, attempt)
    SELECT stream_id, first_version, last_version, kind, recorded_at, envelope, attempt FROM j JOIN done USING (ord)
), notes AS (
    INSERT INTO outbox (stream_ids, first_versions)
    SELECT array_agg(stream_id), array_agg(first_version)
    FROM (SELECT stream_id, first_version FROM j JOIN done USING (ord) ORDER BY ord) d HAVING count(*) > 0
), lineages AS (
    INSERT INTO lineage (instance_id, stream_id) SELECT lineage, stream_id FROM j JOIN done USING (ord)
    WHERE lineage IS NOT NULL
), snapshots AS (
    INSERT INTO snapshot (stream_id, version, state)
    SELECT stream_id, last_version, state FROM j JOIN done USING (ord) WHERE state IS NOT NULL
    ON CONFLICT (stream_id) DO UPDATE SET version = excluded.version, state = excluded.state
), claims AS (
    INSERT INTO claim (namespace, value, stream_id)
    SELECT c.namespace, c.value, j.stream_id FROM claimed c JOIN done USING (ord) JOIN j USING (ord)
    RETURNING namespace, value
), released AS (
    DELETE FROM claim c
    USING unnest($22::int8[], $23::text[], $24::text[]) AS r(ord, namespace, value) JOIN done USING (ord) JOIN j USING (ord)
    WHERE c.namespace = r.namespace AND c.value = r.value AND c.stream_id = j.stream_id
), kept AS (
    INSERT INTO secret (stream_id, purpose, sealed)
    SELECT j.stream_id, k.purpose, k.sealed
    FROM unnest($25::int8[], $26::text[], $27::bytea[]) AS k(ord, purpose, sealed) JOIN done USING (ord) JOIN j USING (ord)
    ON CONFLICT (stream_id, purpose) DO UPDATE SET sealed = excluded.sealed
), forgotten AS (
    DELETE FROM secret s
    USING unnest($28::int8[], $29::text[]) AS f(ord, purpose) JOIN done USING (ord) JOIN j USING (ord)
    WHERE s.stream_id = j.stream_id AND s.purpose = f.purpose
)
SELECT ord AS "ord!", pg_postmaster_start_time() AS "server!" FROM done CROSS JOIN (
    SELECT count(check_unlocked(value, j.recorded_at)) AS keys
    FROM claims JOIN claimed USING (namespace, value) JOIN j USING (ord) WHERE unlocked
) checked WHERE keys >= 0
