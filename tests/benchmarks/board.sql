-- What a Philomena board has besides the sample board's tables.
CREATE TABLE forums (id bigint PRIMARY KEY, name text NOT NULL);
CREATE TABLE topics (
    id bigint PRIMARY KEY, forum_id bigint NOT NULL REFERENCES forums, user_id bigint REFERENCES users,
    created_at timestamp(0) NOT NULL, title text NOT NULL
);
CREATE TABLE posts (
    id bigint PRIMARY KEY, topic_id bigint NOT NULL REFERENCES topics, user_id bigint REFERENCES users,
    created_at timestamp(0) NOT NULL, body text NOT NULL
);
CREATE TABLE galleries (
    id bigint PRIMARY KEY, user_id bigint NOT NULL REFERENCES users, created_at timestamp(0) NOT NULL,
    title text NOT NULL, description text NOT NULL
);
CREATE TABLE gallery_interactions (
    gallery_id bigint NOT NULL REFERENCES galleries, image_id bigint NOT NULL REFERENCES images,
    "position" integer NOT NULL, PRIMARY KEY (gallery_id, image_id)
);
CREATE TABLE tag_changes (
    id bigint PRIMARY KEY, image_id bigint NOT NULL REFERENCES images, user_id bigint REFERENCES users,
    created_at timestamp(0) NOT NULL
);
CREATE TABLE tag_change_tags (
    tag_change_id bigint NOT NULL REFERENCES tag_changes, tag_id bigint NOT NULL REFERENCES tags, added boolean NOT NULL,
    PRIMARY KEY (tag_change_id, tag_id)
);
CREATE TABLE source_changes (
    id bigint PRIMARY KEY, image_id bigint NOT NULL REFERENCES images, user_id bigint REFERENCES users,
    created_at timestamp(0) NOT NULL, added boolean NOT NULL, value text NOT NULL
);
CREATE TABLE artist_links (user_id bigint NOT NULL REFERENCES users, tag_id bigint REFERENCES tags, uri text NOT NULL);
CREATE TABLE badges (id bigint PRIMARY KEY, title text NOT NULL);
CREATE TABLE badge_awards (
    user_id bigint NOT NULL REFERENCES users, badge_id bigint NOT NULL REFERENCES badges, awarded_on timestamp(0)
);
CREATE TABLE image_features (image_id bigint NOT NULL REFERENCES images, created_at timestamp(0) NOT NULL);
CREATE TABLE dnp_entries (id bigint PRIMARY KEY, tag_id bigint NOT NULL REFERENCES tags, conditions text NOT NULL);
CREATE INDEX ON images (created_at);
CREATE INDEX ON images (user_id);
CREATE INDEX ON images (image_orig_sha512_hash);
CREATE INDEX ON image_faves (user_id);
CREATE INDEX ON image_sources (image_id);
CREATE INDEX ON comments (user_id);
CREATE INDEX ON tags (slug);
CREATE INDEX ON posts (topic_id);
CREATE INDEX ON posts (user_id);
CREATE INDEX ON gallery_interactions (image_id);
CREATE INDEX ON tag_changes (image_id);
CREATE INDEX ON tag_changes (user_id);
CREATE INDEX ON tag_change_tags (tag_id);
CREATE INDEX ON source_changes (image_id);
CREATE INDEX ON source_changes (user_id);
