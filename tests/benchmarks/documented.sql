-- The 2020 project's way to its two lists: a SELECT DISTINCT a class, without hidden images and overlaps.
CREATE TABLE flagged AS
SELECT DISTINCT images.id, images.image_format, images.version_path
FROM images JOIN image_taggings ON image_taggings.image_id = images.id JOIN tags ON tags.id = image_taggings.tag_id
WHERE tags.name IN ('explicit', 'questionable', 'grotesque') AND NOT images.hidden_from_users;

CREATE TABLE safe AS
SELECT DISTINCT images.id, images.image_format, images.version_path
FROM images JOIN image_taggings ON image_taggings.image_id = images.id JOIN tags ON tags.id = image_taggings.tag_id
WHERE tags.name IN ('safe') AND NOT images.hidden_from_users;

CREATE TABLE neither AS
SELECT DISTINCT image_taggings.image_id AS id
FROM image_taggings JOIN tags ON tags.id = image_taggings.tag_id
WHERE tags.name IN ('suggestive', 'semi-grimdark', 'grimdark');

-- As anti-joins: with NOT IN the first list of 3.2 million images was not made in 14 minutes.
\copy (SELECT * FROM flagged WHERE NOT EXISTS (SELECT FROM neither WHERE neither.id = flagged.id) AND NOT EXISTS (SELECT FROM safe WHERE safe.id = flagged.id)) TO 'flagged.csv' (FORMAT csv, DELIMITER '|')
\copy (SELECT * FROM safe WHERE NOT EXISTS (SELECT FROM flagged WHERE flagged.id = safe.id AND NOT EXISTS (SELECT FROM neither WHERE neither.id = flagged.id))) TO 'safe.csv' (FORMAT csv, DELIMITER '|')
