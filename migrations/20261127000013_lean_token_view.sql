-- Nodes that run bring no view forward meanwhile, so that neither side waits for the other in a circle.
DO $$ BEGIN PERFORM FROM view_checkpoint FOR UPDATE; END $$;

-- Every recovery wrote the row of its token for this. Which lineage a resumed join is of follows from its certificate.
ALTER TABLE token_view DROP COLUMN instance_id;
