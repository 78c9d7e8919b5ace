-- Takes the guard rows of all tokens with one of these claims, bots or instances. In the order of ids, as every statement
-- that takes more than one guard row.
WITH concerned AS (
    SELECT c.stream_id FROM claim c JOIN unnest($1::text[], $2::text[]) AS t(namespace, value) USING (namespace, value)
)
SELECT s.stream_id FROM stream s
WHERE s.kind = 'token' AND s.stream_id IN (
    SELECT stream_id FROM concerned
    UNION SELECT t.stream_id FROM stream t JOIN concerned b ON t.bot_id = b.stream_id WHERE t.kind = 'token' AND t.live
    UNION SELECT stream_id FROM stream WHERE kind = 'token' AND live AND bot_id = ANY($3::uuid[])
    UNION SELECT stream_id FROM lineage WHERE instance_id = ANY($4::uuid[])
    -- Begun on a node of a version that keeps no lineages, while nodes are replaced one after another: then all are searched.
    UNION SELECT stream_id FROM stream WHERE instance_id = ANY($4::uuid[])
        AND NOT EXISTS (SELECT FROM lineage WHERE instance_id = ANY($4::uuid[])))
ORDER BY s.stream_id FOR NO KEY UPDATE
