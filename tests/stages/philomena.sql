-- The tables of a Philomena board's public dump, and some that nothing here reads.
CREATE EXTENSION citext;
CREATE TABLE images (
    id bigint NOT NULL, created_at timestamp(0) NOT NULL, updated_at timestamp(0) NOT NULL,
    image_width integer NOT NULL, image_height integer NOT NULL, image_size integer NOT NULL,
    comment_count integer DEFAULT 0 NOT NULL, score integer DEFAULT 0 NOT NULL, favorites integer DEFAULT 0 NOT NULL,
    upvotes integer DEFAULT 0 NOT NULL, downvotes integer DEFAULT 0 NOT NULL, hides integer DEFAULT 0 NOT NULL,
    image_aspect_ratio double precision NOT NULL, user_id bigint, hidden_from_users boolean DEFAULT false NOT NULL,
    image_mime_type text NOT NULL, image_format text NOT NULL, image_name text NOT NULL, version_path text NOT NULL,
    image_sha512_hash text, image_orig_sha512_hash text, description text,
    CONSTRAINT images_pkey PRIMARY KEY (id)
);
CREATE TABLE tags (
    id bigint PRIMARY KEY, image_count bigint DEFAULT 0 NOT NULL, name citext NOT NULL, slug text NOT NULL,
    category text, description text, short_description text
);
CREATE TABLE image_taggings (
    image_id bigint REFERENCES images, tag_id bigint REFERENCES tags, PRIMARY KEY (image_id, tag_id)
);
CREATE TABLE image_intensities (
    image_id bigint REFERENCES images, nw_intensity double precision, ne_intensity double precision,
    sw_intensity double precision, se_intensity double precision
);
CREATE TABLE image_duplicates (image_id bigint, target_id bigint);
CREATE TABLE image_hides (image_id bigint, reason text);
CREATE TABLE tag_aliases (tag_id bigint, target_tag_id bigint);
CREATE TABLE tag_implications (tag_id bigint, target_tag_id bigint);
CREATE TABLE image_sources (image_id bigint, source text);
CREATE TABLE users (id bigint PRIMARY KEY, name text NOT NULL);
CREATE TABLE comments (id bigint PRIMARY KEY, image_id bigint REFERENCES images, user_id bigint, body text);
CREATE TABLE image_faves (image_id bigint REFERENCES images, user_id bigint);
CREATE INDEX comments_of_image ON comments (image_id);
INSERT INTO users VALUES (1, 'a user'), (2, 'another');
