-- Takes the claims of what a lock stops, as if they were its own where nobody has them.
INSERT INTO claim (namespace, value, stream_id)
SELECT DISTINCT namespace, value, $3::uuid FROM unnest($1::text[], $2::text[]) AS c(namespace, value) ORDER BY namespace, value
ON CONFLICT (namespace, value) DO UPDATE SET stream_id = claim.stream_id
