-- End and entries in one statement, thus of one moment.
SELECT s.next_index, l.log_index AS "log_index?", l.stream_id AS "stream_id?",
    l.first_version AS "first_version?", e.last_version AS "last_version?", e.stream_kind AS "stream_kind?",
    e.recorded_at AS "recorded_at?", e.envelope AS "envelope?",
    pg_postmaster_start_time() AS "server!"
FROM sequencer s
    LEFT JOIN log_entry l ON l.log_index >= $1 AND l.log_index < $1 + $2
    LEFT JOIN entry e ON e.stream_id = l.stream_id AND e.first_version = l.first_version
ORDER BY l.log_index
