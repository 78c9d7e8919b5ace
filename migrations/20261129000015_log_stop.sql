-- Who holds proof that this history is not the one that was signed, and what it is: while one stands, no node signs. By
-- the node, as a second finder's stop must outlast the first one's. Nodes of the build before read and write none of it.
ALTER TABLE log_head ADD COLUMN stops jsonb NOT NULL DEFAULT '{}';
