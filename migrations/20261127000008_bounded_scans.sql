-- What runs for every join may not get slower with the rows that joins before it left behind.

-- Notes are taken in the order of their transactions, so that a step begins where the notes are, and not at the rows of
-- all those that were taken since the last vacuum. Notes of before count as this transaction's.
ALTER TABLE outbox ADD COLUMN xid xid8 NOT NULL DEFAULT pg_current_xact_id();
ALTER TABLE outbox DROP CONSTRAINT outbox_pkey, ADD PRIMARY KEY (xid, position);
-- Older transactions have ended, and left no note that is not numbered.
ALTER TABLE sequencer ADD COLUMN horizon xid8 NOT NULL DEFAULT '0';

-- A token's expired certificates are found without a look at those that are in force. By serial or instance nobody looks.
DROP INDEX certificate_view_of_token, certificate_view_of_instance;
ALTER TABLE certificate_view DROP CONSTRAINT certificate_view_pkey, ADD PRIMARY KEY (token_id, not_after, serial);

-- Ten authentications as objects made a row that is compressed whenever it is written. As arrays they are half as long:
-- moment, address, case, generation, serial, end; moments in microseconds since 1970. No string in them has a space.
UPDATE instance_view SET latest = (
    SELECT translate(coalesce(json_agg(json_build_array(
        (extract(epoch FROM (a ->> 'at')::timestamptz) * 1000000)::int8, a -> 'address', a -> 'case', a -> 'generation',
        a -> 'serial', (extract(epoch FROM (a ->> 'not_after')::timestamptz) * 1000000)::int8) ORDER BY ord), '[]')::text,
        E' \n', '')
    FROM json_array_elements(latest::json) WITH ORDINALITY AS latest (a, ord));
