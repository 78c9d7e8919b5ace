-- Streams, and to which version of each the log goes in its first entries.
SELECT s.stream_id AS "stream_id!", s.kind AS "kind!", s.version AS "version!", s.fence AS "fence!",
    s.state AS "state!", s.snapshot_version AS "snapshot_version!", s.since AS "since!", s.server AS "server!", (
    SELECT e.last_version FROM log_entry l JOIN entry e USING (stream_id, first_version)
    WHERE l.stream_id = s.stream_id AND l.log_index < $2 ORDER BY l.first_version DESC LIMIT 1) AS "sealed?"
FROM folded s WHERE s.stream_id > $1 AND s.kind IN ('token', 'bot', 'lock') ORDER BY s.stream_id LIMIT $3
