import subprocess
import sys

import cep.events


def test_every_public_name_is_there():
    assert all(hasattr(cep.events, name) for name in cep.events.__all__)
    assert len(set(cep.events.__all__)) == len(cep.events.__all__)


def test_events_are_imported_without_numpy_until_columns_are_used():
    code = (
        "import sys, cep.events; assert 'numpy' not in sys.modules; "
        "cep.events.EventColumns; assert 'numpy' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
