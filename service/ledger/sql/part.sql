-- Gives up those that nobody else had.
DELETE FROM claim WHERE stream_id = $1
