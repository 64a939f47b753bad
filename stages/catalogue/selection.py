"""The policy -> one SQL statement that selects and labels the board's images in one pass over their tags."""

from __future__ import annotations

from typing import Any

from psycopg2 import sql

from stages.catalogue import tags
from stages.catalogue.corrected import Corrected
from stages.catalogue.tags import Tags
from stages.config.extract import Extract, TagRule

REASONS = (
    "merged",
    "removed",
    "invalid_id",
    "invalid_date",
    "invalid_size",
    "format",
    "too_small",
    "untagged",
    "overlap",
    "no_label",
    "over_limit",
)
"""Why an image is left out: the first reason that applies, in this order."""
FIRST_DAY, LAST_DAY = "1990-01-01", "2100-01-01"
"""No picture was uploaded before the Web, or will be after this program. Without a date, a picture has no address."""
MAX_SIDE = 32_767
"""Most pixels of a side that Philomena accepts. Source: `lib/philomena/images/image.ex`."""

STATEMENT = sql.SQL("""
WITH RECURSIVE marked AS NOT MATERIALIZED ( -- a materialised CTE would rule out parallel workers
    SELECT id, number, is_alias, mask
    FROM {tags} LEFT JOIN unnest(%(numbers)s::int[], %(masks)s::varbit[]) AS policy (tag, mask)
        ON policy.tag = abs(number)
), tagged AS (
    SELECT image_id, bit_or(mask) AS mask, array_agg(number) AS numbers, bool_or(is_alias) AS has_alias,
        count(*) FILTER (WHERE number > 0) AS usable
    FROM image_taggings JOIN marked ON marked.id = tag_id
    GROUP BY image_id
), merges AS (
    SELECT DISTINCT image_id, target_id FROM image_duplicates WHERE image_id <> target_id
), chain AS ( -- if A was merged into B, and B into C, then A was merged into C, from which the chain is followed
    SELECT image_id, target_id FROM merges
    WHERE NOT EXISTS (SELECT FROM merges further WHERE further.image_id = merges.target_id)
    UNION
    SELECT merges.image_id, chain.target_id FROM chain JOIN merges ON merges.target_id = chain.image_id
), merged AS (
    SELECT target_id, array_agg(image_id ORDER BY image_id) AS ids FROM chain GROUP BY 1
), edits AS ( -- of tags, by the corrections
    SELECT image_id, added::int[] AS added, removed::int[] AS removed
    FROM unnest(%(edited)s::bigint[], %(added)s::text[], %(removed)s::text[]) AS edit (image_id, added, removed)
), relabelled AS (
    SELECT image_id, given::int[] AS given
    FROM unnest(%(relabelled)s::bigint[], %(given)s::text[]) AS label (image_id, given)
), joined AS (
    SELECT images.*, merged.ids AS merged_ids, mask, usable, has_alias, given, numbers AS before,
        edits.image_id IS NOT NULL AS is_edited,
        CASE WHEN edits.image_id IS NULL THEN numbers
            ELSE ARRAY((SELECT unnest(numbers) UNION SELECT unnest(added)) EXCEPT SELECT unnest(removed)) END
            AS corrected_numbers,
        gone.image_id IS NOT NULL AS is_merged,
        coalesce(hidden_from_users, false) OR hidden.image_id IS NOT NULL AS is_removed
    FROM images
        LEFT JOIN tagged ON tagged.image_id = images.id
        LEFT JOIN edits ON edits.image_id = images.id
        LEFT JOIN relabelled ON relabelled.image_id = images.id
        LEFT JOIN merged ON merged.target_id = images.id
        LEFT JOIN (SELECT DISTINCT image_id FROM image_duplicates WHERE image_id <> target_id) gone
            ON gone.image_id = images.id
        LEFT JOIN (SELECT DISTINCT image_id FROM image_hides) hidden ON hidden.image_id = images.id
), facts AS (
    SELECT id, created_at, image_width, image_height, image_size, image_sha512_hash, image_name, merged_ids, given,
        is_edited, before, is_merged, is_removed, corrected_numbers AS numbers, lower(image_format) AS extension,
        least(image_width, image_height) AS side,
        CASE WHEN is_edited OR has_alias -- an image may have an alias and its target, which count once
            THEN (SELECT count(DISTINCT number) FROM unnest(corrected_numbers) AS number WHERE number > 0)
            ELSE usable END AS usable,
        coalesce(CASE WHEN is_edited THEN (
            SELECT bit_or(mask) FROM unnest(corrected_numbers) AS number
                JOIN unnest(%(numbers)s::int[], %(masks)s::varbit[]) AS policy (tag, mask) ON tag = abs(number)
            ) ELSE mask END, %(zero)s::varbit) AS mask
    FROM joined
), taken AS (
    SELECT *, array_remove(ARRAY[{labels}]::int[], NULL) AS own_labels FROM facts
), labelled AS (
    SELECT *, coalesce(given, own_labels) AS labels,
        given <> CASE WHEN %(exclusive)s AND NOT %(exclude)s THEN own_labels[1:1] ELSE own_labels END
            OR given IS NOT NULL AND coalesce(usable, 0) < %(min_tags)s AS is_changed
    FROM taken
), judged AS (
    SELECT *, CASE
        WHEN is_merged THEN 'merged'
        WHEN is_removed THEN 'removed'
        WHEN id IS NULL THEN 'invalid_id'
        WHEN (created_at >= %(first_day)s AND created_at < %(last_day)s) IS NOT TRUE THEN 'invalid_date'
        WHEN (image_width BETWEEN 1 AND %(max_side)s AND image_height BETWEEN 1 AND %(max_side)s) IS NOT TRUE
            THEN 'invalid_size'
        WHEN coalesce(CASE extension WHEN 'jpg' THEN 'jpeg' ELSE extension END <> ALL(%(formats)s), true) THEN 'format'
        WHEN side < %(min_side)s THEN 'too_small'
        WHEN given IS NULL AND coalesce(usable, 0) < %(min_tags)s THEN 'untagged'
        WHEN %(exclusive)s AND %(exclude)s AND cardinality(labels) > 1 THEN 'overlap'
        WHEN %(exclusive)s AND cardinality(labels) = 0 THEN 'no_label'
    END AS fault
    FROM labelled
), limited AS ({limited})
SELECT reason, limited.id, CASE WHEN %(exclusive)s THEN labels[1:1] ELSE labels END,
    image_width, image_height, extension, image_sha512_hash, CASE WHEN image_size > 0 THEN image_size END,
    corners.nw_intensity, corners.ne_intensity, corners.sw_intensity, corners.se_intensity,
    merged_ids, CASE WHEN reason IS NULL THEN numbers END, image_name, CASE WHEN reason IS NULL THEN created_at END,
    is_changed, CASE WHEN is_edited THEN before END
FROM limited LEFT JOIN (
    SELECT DISTINCT ON (image_id) * FROM image_intensities
    WHERE {valid_intensities} ORDER BY image_id, nw_intensity, ne_intensity, sw_intensity, se_intensity
) corners ON corners.image_id = limited.id
ORDER BY limited.id
""")

VALID_INTENSITIES = sql.SQL("""
    (nw_intensity BETWEEN 0 AND 255 AND ne_intensity BETWEEN 0 AND 255 AND sw_intensity BETWEEN 0 AND 255
        AND se_intensity BETWEEN 0 AND 255) IS TRUE
""")  # NaN is greater than every number
INVALID_INTENSITIES = sql.SQL("SELECT count(*) FROM image_intensities WHERE NOT {}").format(VALID_INTENSITIES)

UNLIMITED = sql.SQL("SELECT *, fault AS reason FROM judged")
LIMITED = sql.SQL("""
    SELECT judged.*, CASE WHEN fault IS NULL AND chosen.id IS NULL THEN 'over_limit' ELSE fault END AS reason
    FROM judged LEFT JOIN (
        SELECT DISTINCT id FROM (
            SELECT id, row_number() OVER (PARTITION BY label ORDER BY md5(%(seed)s || ':' || id), id) AS place
            FROM judged, unnest(CASE
                WHEN cardinality(labels) = 0 THEN ARRAY[-1] WHEN %(exclusive)s THEN labels[1:1] ELSE labels
            END) AS label
            WHERE fault IS NULL
        ) placed WHERE place <= %(limit)s
    ) chosen ON chosen.id = judged.id
""")


def statement(params: Extract, known: Tags, corrected: Corrected) -> tuple[sql.Composed, dict[str, Any]]:
    """The statement, and the values of its placeholders.

    Every tag that the policy names gets a bit. The database combines the bits of an image's tags into a mask, and a
    label's rule is a condition on that mask. Corrected tags change the mask of their image; a corrected label takes the
    place of what the rules say, also where they leave the image out: for few tags, several labels or none.

    Raises:
        PolicyError: if the board does not have a tag.
    """
    policy = params.policy
    numbers = known.resolve(name for rule in policy.labels.values() for name in (*rule.any, *rule.all, *rule.none))
    bits = {number: bit for bit, number in enumerate(dict.fromkeys(numbers.values()))}
    width = max(1, len(bits))

    def mask(*of: int) -> str:
        return "".join("1" if bit in of else "0" for bit in range(width))

    def rule_masks(rule: TagRule) -> dict[str, str]:
        return {
            word: mask(*(bits[numbers[name]] for name in names))
            for word, names in (("any", rule.any), ("all", rule.all), ("none", rule.none))
        }

    # Tag names come from outside: the statement contains numbers, masks and placeholders only.
    values: dict[str, Any] = {
        "numbers": list(bits),
        "masks": [mask(bit) for bit in bits.values()],
        "zero": mask(),
        "formats": list(params.formats),
        "min_side": params.min_side,
        "max_side": MAX_SIDE,
        "first_day": FIRST_DAY,
        "last_day": LAST_DAY,
        "min_tags": policy.min_tags,
        "exclusive": policy.kind != "multilabel",
        "exclude": policy.overlap == "exclude",
        "limit": params.limit,
        "seed": str(params.seed),
        **corrected.values(),
    }
    conditions: dict[str, sql.Composable] = {}
    for place, (label, rule) in enumerate(policy.labels.items()):
        if not rule.rest:
            values |= {f"{word}{place}": bits for word, bits in rule_masks(rule).items()}
            conditions[label] = _condition(rule, place)
    taken = sql.SQL(" OR ").join(conditions.values()) if conditions else sql.SQL("false")
    # `rest` matches what no other rule does, so its condition negates all of theirs.
    rest = sql.SQL("NOT ({})").format(taken)
    labels = sql.SQL(", ").join(
        sql.SQL("CASE WHEN {} THEN {} END").format(conditions.get(label, rest), sql.Literal(place))
        for place, label in enumerate(policy.labels)
    )
    limited = LIMITED if params.limit else UNLIMITED
    return (
        STATEMENT.format(
            tags=sql.Identifier(tags.TABLE),
            labels=labels,
            limited=limited,
            valid_intensities=VALID_INTENSITIES,
        ),
        values,
    )


def _condition(rule: TagRule, place: int) -> sql.Composable:
    """SQL condition on an image's mask that is true if the rule matches."""
    terms = [sql.SQL("mask & {none}::varbit = %(zero)s::varbit")]
    if rule.any:
        terms.append(sql.SQL("mask & {any}::varbit <> %(zero)s::varbit"))
    if rule.all:
        terms.append(sql.SQL("mask & {all}::varbit = {all}::varbit"))
    own = {word: sql.Placeholder(f"{word}{place}") for word in ("any", "all", "none")}
    return sql.SQL("({})").format(sql.SQL(" AND ").join(term.format(**own) for term in terms))
