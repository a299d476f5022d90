"""Events as columns, spelled out row by row so that tests can compare them."""

from cep.events.ids import words_to_ulid


def rows_of(events):
    """Return one dict per event: stream, ids, time, type and each field there is."""
    fields = {name: column.to_list() for name, column in events.fields.items()}
    return [
        {
            "stream": events.stream,
            "entry_id": f"{events.entry_ms[i]}-{events.entry_seq[i]}",
            "event_id": words_to_ulid(events.id_hi[i], events.id_lo[i]),
            "time_ms": int(events.time_ms[i]),
            "type": events.types[events.type_code[i]],
            **{
                name: values[i]
                for name, values in fields.items()
                if values[i] is not None
            },
        }
        for i in range(len(events))
    ]
