-- Each token that is asked for, with its bot and the locks that concern it, all at one moment, since it is one statement:
-- what it finds together was true together. OFFSET 0 has everything looked up one by one. Without statistics the planner
-- believes in thousands of locks, and would read all streams for each token; and in few entries, and would read them all.
WITH asked AS (
    SELECT * FROM unnest($1::text[], $2::uuid[]) WITH ORDINALITY AS a(name, attempt, asked)
), token AS (
    SELECT a.asked, a.attempt, s.* FROM asked a CROSS JOIN LATERAL (
        SELECT stream_id FROM claim WHERE namespace = 'token_name' AND value = a.name OFFSET 0
    ) c CROSS JOIN LATERAL (SELECT * FROM stream WHERE stream_id = c.stream_id OFFSET 0) s
), bot AS (
    SELECT t.asked, b.* FROM token t CROSS JOIN LATERAL (SELECT * FROM stream WHERE stream_id = t.bot_id OFFSET 0) b
), targets AS (
    SELECT asked, 'join_token:' || name AS target FROM token
    UNION SELECT asked, 'user:bot-' || name FROM bot
    UNION SELECT asked, 'bot_instance_id:' || instance_id FROM token WHERE instance_id IS NOT NULL
    UNION SELECT t.asked, 'public_key:' || k.value FROM token t CROSS JOIN LATERAL (
        SELECT value FROM claim WHERE stream_id = t.stream_id AND namespace = 'key' OFFSET 0
    ) k
    UNION SELECT * FROM unnest($3::bigint[], $4::text[])
), locks AS (
    SELECT t.asked, l.* FROM targets t CROSS JOIN LATERAL (
        SELECT * FROM stream WHERE lock_target = t.target AND live AND (expires_at IS NULL OR expires_at > $5) OFFSET 0
    ) l
), known AS (
    SELECT asked, stream_id, kind, version, fence, attempt FROM token
    UNION ALL SELECT asked, stream_id, kind, version, fence, NULL FROM bot
    UNION ALL SELECT asked, stream_id, kind, version, fence, NULL FROM locks
)
SELECT k.asked AS "asked!", k.stream_id AS "stream_id!", k.kind AS "kind!", k.version AS "version!", k.fence AS "fence!",
    f.state AS "state!", f.snapshot_version AS "snapshot_version!", f.since AS "since!", f.server AS "server!",
    k.attempt IS NOT NULL AND EXISTS (
        SELECT FROM entry e WHERE e.stream_id = k.stream_id AND e.attempt = k.attempt OFFSET 0
    ) AS "accepted!"
FROM known k CROSS JOIN LATERAL (SELECT * FROM folded WHERE folded.stream_id = k.stream_id OFFSET 0) f
