-- Every constraint and index away; NOT NULL stays.
DO $$
DECLARE it record;
BEGIN
    FOR it IN SELECT conname, conrelid::regclass AS place FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace AND contype IN ('f', 'p', 'u') ORDER BY contype = 'f' DESC
    LOOP EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', it.place, it.conname); END LOOP;
    FOR it IN SELECT indexrelid::regclass AS place FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
        WHERE relnamespace = 'public'::regnamespace
    LOOP EXECUTE format('DROP INDEX %s', it.place); END LOOP;
END $$;
