"""Payloads for property tests: valid ones, and ones with something off."""

from hypothesis import strategies as st

from cep.events import registry

# Other test modules may have registered types of their own by now.
TYPES = [t for t in registry.all() if t.model.__module__.startswith("cep.")]

texts = st.text(st.characters(codec="utf-8"), max_size=12)
numbers = st.integers(-(10**6), 10**6) | st.floats(
    allow_nan=False, allow_infinity=False
)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
    ),
    max_leaves=6,
)
odd_numbers = [0, 1, 5.0, -0.0, 5.5, 1e300, 2**53 + 1, 10**308, 10**309]
int_bounds = [2**63 - 1, -(2**63), 2**63, 2.0**63, -(2.0**63)]
odd_texts = ["", "5", "true"]
odd_values = json_values | st.sampled_from(
    [*odd_numbers, *int_bounds, *odd_texts, None, [], {}, ["a", None], [""]]
)


def valid_value(field):
    """Values that may be published in a field."""
    if field.choices is not None:
        values = st.sampled_from(field.choices)
    elif field.kind == "json":
        values = _valid_json(field)
    else:
        values = {
            "float": numbers,
            "int": st.integers(-(2**63), 2**63 - 1)
            | st.integers(-1000, 1000).map(float),
            "bool": st.booleans(),
            "str": texts.filter(bool) if field.non_empty else texts,
        }[field.kind]
    return st.none() | values if field.nullable else values


def _valid_json(field):
    if field.shape == "array":
        return st.lists(valid_value(field.items) if field.items else json_values)
    if field.shape == "object" and field.fields:
        return valid_payload(field.fields)
    if field.shape == "object":
        return st.dictionaries(texts, json_values, max_size=3)
    return json_values


def valid_payload(fields):
    """Payloads that may be published: optional fields may be absent."""
    return st.fixed_dictionaries(
        {field.name: valid_value(field) for field in fields if field.required},
        optional={f.name: valid_value(f) for f in fields if not f.required},
    )


@st.composite
def any_payload(draw, fields):
    """Payloads with up to three fields removed or replaced by anything."""
    payload = draw(valid_payload(fields))
    for _ in range(draw(st.integers(0, 3))):
        field = draw(st.sampled_from(fields))
        if draw(st.booleans()):
            payload.pop(field.name, None)
        else:
            payload[field.name] = draw(valid_value(field) | odd_values)
    for name, value in draw(st.dictionaries(texts, json_values, max_size=2)).items():
        payload.setdefault(name, value)
    return payload


payloads_of_types = st.sampled_from(TYPES).flatmap(
    lambda known: st.tuples(st.just(known), valid_payload(known.fields))
)
any_payloads_of_types = st.sampled_from(TYPES).flatmap(
    lambda known: st.tuples(st.just(known), any_payload(known.fields))
)
