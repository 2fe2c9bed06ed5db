"""The checker behind the shape annotations in the test run: beartype, with int accepted where float is annotated."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
