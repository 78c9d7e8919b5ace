-- Refuses to bind a key while a lock on it is in force. An append asks when it has the claim of the key, for which it may
-- have waited until the lock's transaction ended: a volatile function sees what was committed while its statement waited,
-- and the statement itself does not. Whoever locks the key from then on finds the claim. Builds before this one don't ask.
CREATE FUNCTION check_unlocked(key text, at timestamptz) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF EXISTS (
        SELECT FROM stream WHERE live AND lock_target = 'public_key:' || key AND (expires_at IS NULL OR expires_at > at)
    ) THEN
        RAISE EXCEPTION 'the key % is locked', key USING ERRCODE = 'serialization_failure';
    END IF;
END $$;
GRANT EXECUTE ON FUNCTION check_unlocked TO join_service;
