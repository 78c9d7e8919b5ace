-- Takes the guard rows of all tokens with one of these claims, bots or instances. In the order of ids, as every statement
-- that takes more than one guard row. OFFSET 0 has all of them looked up one by one.
WITH concerned AS (
    SELECT c.stream_id FROM unnest($1::text[], $2::text[]) AS t(namespace, value) CROSS JOIN LATERAL (
        SELECT stream_id FROM claim WHERE claim.namespace = t.namespace AND claim.value = t.value OFFSET 0
    ) c
), bots AS (
    SELECT stream_id AS id FROM concerned UNION SELECT unnest($3::uuid[])
), tokens AS (
    SELECT stream_id FROM concerned
    UNION SELECT t.stream_id FROM bots CROSS JOIN LATERAL (
        SELECT stream_id FROM stream WHERE bot_id = bots.id AND kind = 'token' AND live OFFSET 0
    ) t
    UNION SELECT l.stream_id FROM unnest($4::uuid[]) AS i(id) CROSS JOIN LATERAL (
        SELECT stream_id FROM lineage WHERE instance_id = i.id OFFSET 0
    ) l
)
SELECT s.stream_id AS "stream_id!" FROM (SELECT stream_id FROM tokens ORDER BY stream_id OFFSET 0) t CROSS JOIN LATERAL (
    SELECT stream_id FROM stream WHERE stream.stream_id = t.stream_id AND kind = 'token' FOR NO KEY UPDATE
) s
