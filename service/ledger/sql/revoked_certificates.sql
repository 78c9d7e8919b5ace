-- Certificates whose binding ended, and those that a lock in force stops.
WITH locks AS (
    SELECT split_part(lock_target, ':', 1) AS kind, substr(lock_target, strpos(lock_target, ':') + 1) AS value
    FROM stream WHERE lock_target IS NOT NULL AND live AND (expires_at IS NULL OR expires_at > $1)
)
SELECT serial, revoked_at FROM certificate_view WHERE not_after > $1 AND (
    revoked_at IS NOT NULL
    OR token_name IN (SELECT value FROM locks WHERE kind = 'join_token')
    OR 'bot-' || bot_name IN (SELECT value FROM locks WHERE kind = 'user')
    OR instance_id::text IN (SELECT value FROM locks WHERE kind = 'bot_instance_id')
    OR key IN (SELECT value FROM locks WHERE kind = 'public_key'))
ORDER BY serial
