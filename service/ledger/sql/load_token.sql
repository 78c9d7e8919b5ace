-- All at one moment, since it is one statement: what it finds together was true together.
-- OFFSET 0 has locks and states looked up one by one. Without statistics the planner believes in thousands of locks,
-- and would read all streams for each token.
WITH token AS (
    SELECT s.* FROM claim c JOIN stream s USING (stream_id) WHERE c.namespace = 'token_name' AND c.value = $1
), bot AS (
    SELECT b.* FROM token JOIN stream b ON b.stream_id = token.bot_id
), targets AS (
    SELECT 'join_token:' || name AS target FROM token
    UNION SELECT 'user:bot-' || name FROM bot
    UNION SELECT 'bot_instance_id:' || instance_id FROM token WHERE instance_id IS NOT NULL
    UNION SELECT 'public_key:' || k.value FROM token JOIN claim k USING (stream_id) WHERE k.namespace = 'key'
    UNION SELECT unnest($2::text[])
), locks AS (
    SELECT l.* FROM targets CROSS JOIN LATERAL (
        SELECT * FROM stream WHERE lock_target = target AND live AND (expires_at IS NULL OR expires_at > $3) OFFSET 0
    ) l
), known AS (
    SELECT * FROM token UNION ALL SELECT * FROM bot UNION ALL SELECT * FROM locks
)
SELECT k.stream_id AS "stream_id!", k.kind AS "kind!", k.version AS "version!", k.fence AS "fence!",
    f.state AS "state!", f.snapshot_version AS "snapshot_version!", f.since AS "since!", f.server AS "server!",
    EXISTS (SELECT FROM token JOIN entry e USING (stream_id) WHERE e.attempt = $4) AS "accepted!"
FROM known k CROSS JOIN LATERAL (SELECT * FROM folded WHERE folded.stream_id = k.stream_id OFFSET 0) f
