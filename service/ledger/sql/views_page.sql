-- Guard rows, and to which version of each the log goes in its first entries.
SELECT s.stream_id, s.kind, s.version, s.state, (
    SELECT e.last_version FROM log_entry l JOIN entry e USING (stream_id, first_version)
    WHERE l.stream_id = s.stream_id AND l.log_index < $2 ORDER BY l.first_version DESC LIMIT 1) AS "sealed?"
FROM stream s WHERE s.stream_id > $1 AND s.kind IN ('token', 'bot', 'lock') ORDER BY s.stream_id LIMIT $3
