-- The bot's tables of schema version 2, with a row in each: valid in SQLite and PostgreSQL.
CREATE TABLE channels (
	channel_id BIGINT NOT NULL,
	guild_id BIGINT NOT NULL,
	message_id BIGINT NOT NULL,
	PRIMARY KEY (channel_id)
);
CREATE INDEX ix_channels_guild_id ON channels (guild_id);
CREATE TABLE decisions (
	id VARCHAR(32) NOT NULL,
	guild_id BIGINT NOT NULL,
	channel_id BIGINT NOT NULL,
	message_id BIGINT NOT NULL,
	picture VARCHAR(80) NOT NULL,
	user_id BIGINT,
	sha256 VARCHAR(64),
	phash BIGINT,
	verdict TEXT NOT NULL,
	label TEXT NOT NULL,
	score FLOAT NOT NULL,
	threshold FLOAT,
	scores JSON NOT NULL,
	action SMALLINT NOT NULL,
	done SMALLINT NOT NULL,
	origin VARCHAR(20) NOT NULL,
	model VARCHAR(120) NOT NULL,
	detail VARCHAR(300) NOT NULL,
	created_at BIGINT NOT NULL,
	state VARCHAR(12) NOT NULL,
	moderator_id BIGINT,
	decided_at BIGINT,
	PRIMARY KEY (id)
);
CREATE INDEX decisions_of_a_guild ON decisions (guild_id, created_at);
CREATE INDEX ix_decisions_created_at ON decisions (created_at);
CREATE INDEX ix_decisions_user_id ON decisions (user_id);
CREATE UNIQUE INDEX one_decision_a_picture ON decisions (message_id, picture);
CREATE TABLE guilds (
	guild_id BIGINT NOT NULL,
	seen_at BIGINT NOT NULL,
	PRIMARY KEY (guild_id)
);
CREATE INDEX ix_guilds_seen_at ON guilds (seen_at);
CREATE TABLE meta (
	key VARCHAR(40) NOT NULL,
	value TEXT NOT NULL,
	PRIMARY KEY (key)
);
CREATE TABLE outbox (
	id VARCHAR(32) NOT NULL,
	guild_id BIGINT NOT NULL,
	channel_id BIGINT NOT NULL,
	message_id BIGINT NOT NULL,
	user_id BIGINT,
	state VARCHAR(12) NOT NULL,
	tries SMALLINT NOT NULL,
	due_at BIGINT NOT NULL,
	entry JSON NOT NULL,
	created_at BIGINT NOT NULL,
	PRIMARY KEY (id)
);
CREATE INDEX ix_outbox_created_at ON outbox (created_at);
CREATE INDEX ix_outbox_guild_id ON outbox (guild_id);
CREATE INDEX ix_outbox_state ON outbox (state);
CREATE INDEX ix_outbox_user_id ON outbox (user_id);
CREATE TABLE policies (
	guild_id BIGINT NOT NULL,
	policy TEXT NOT NULL,
	PRIMARY KEY (guild_id)
);
CREATE TABLE reposts (
	message_id BIGINT NOT NULL,
	guild_id BIGINT NOT NULL,
	repost_id BIGINT NOT NULL,
	created_at BIGINT NOT NULL,
	PRIMARY KEY (message_id)
);
CREATE INDEX ix_reposts_created_at ON reposts (created_at);
CREATE TABLE retries (
	message_id BIGINT NOT NULL,
	picture VARCHAR(80) NOT NULL,
	guild_id BIGINT NOT NULL,
	channel_id BIGINT NOT NULL,
	user_id BIGINT,
	tries SMALLINT NOT NULL,
	due_at BIGINT NOT NULL,
	created_at BIGINT NOT NULL,
	PRIMARY KEY (message_id, picture)
);
CREATE INDEX ix_retries_created_at ON retries (created_at);
CREATE INDEX ix_retries_due_at ON retries (due_at);
CREATE INDEX ix_retries_guild_id ON retries (guild_id);
CREATE INDEX ix_retries_user_id ON retries (user_id);
CREATE TABLE rulings (
	guild_id BIGINT NOT NULL,
	sha256 VARCHAR(64) NOT NULL,
	phash BIGINT NOT NULL,
	allowed BOOLEAN NOT NULL,
	label TEXT NOT NULL,
	created_at BIGINT NOT NULL,
	PRIMARY KEY (guild_id, sha256)
);
CREATE INDEX ix_rulings_created_at ON rulings (created_at);
CREATE TABLE scores (
	sha256 VARCHAR(64) NOT NULL,
	md5 VARCHAR(32) NOT NULL,
	phash BIGINT NOT NULL,
	scores JSON NOT NULL,
	detail VARCHAR(300) NOT NULL,
	created_at BIGINT NOT NULL,
	PRIMARY KEY (sha256, md5)
);
CREATE INDEX ix_scores_created_at ON scores (created_at);
INSERT INTO meta VALUES ('schema', '2');
INSERT INTO meta VALUES ('commands', 'a digest');
INSERT INTO policies VALUES (10, '{"mode": "enforce", "modlog": 7, "rules": [{"label": "flagged", "threshold": 0.7, "action": 3, "ping": true}]}');
INSERT INTO decisions VALUES ('0000000000000000000000000000000a', 10, 20, 1001, 'attachment:1', 30, NULL, NULL, 'overloaded', 'overloaded', 1.0, NULL, '{}', 0, 0, 'unjudged', 'moderator@v1.2.0', '128 pictures in the queue', 1700000000, 'closed', NULL, NULL);
INSERT INTO decisions VALUES ('0000000000000000000000000000000b', 10, 20, 1002, 'attachment:2', 30, '00', -5, 'flagged', 'flagged', 0.9, 0.7, '{"flagged": 0.9}', 3, 3, 'model', 'moderator@v1.2.0', '', 1700000001, 'open', NULL, NULL);
INSERT INTO rulings VALUES (10, '00', -5, FALSE, 'flagged', 1700000002);
INSERT INTO scores VALUES ('00', 'mmmm', -5, '{"flagged": 0.9}', '', 1700000003);
INSERT INTO channels VALUES (20, 10, 1001);
INSERT INTO retries VALUES (1001, 'attachment:1', 10, 20, 30, 1, 1700000100, 1700000004);
INSERT INTO outbox VALUES ('0000000000000000000000000000000c', 10, 20, 1002, 30, 'posted', 0, 1700000005, '{}', 1700000005);
INSERT INTO guilds VALUES (10, 1700000006);
INSERT INTO reposts VALUES (1003, 10, 1004, 1700000007);
