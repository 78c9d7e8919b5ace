-- The stream's end and its entries in one statement, thus of one moment.
SELECT s.version, e.envelope AS "envelope?" FROM stream s LEFT JOIN LATERAL (
    SELECT first_version, envelope FROM entry
    WHERE entry.stream_id = s.stream_id AND first_version >= $2 ORDER BY first_version LIMIT $3) e ON true
WHERE s.stream_id = $1 ORDER BY e.first_version
