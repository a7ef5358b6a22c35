"""Tests of utility.drivers: which row is for which switch, and that the rows are sound."""

from __future__ import annotations

from dataclasses import replace

import pytest

from utility.drivers import DRIVERS, FDB_MODES, INDEX_RULES, OBJECTS, SOURCES, STANDARD, Driver, driver_for, oid


@pytest.mark.parametrize(
    ("object_id", "name"),
    [
        ("1.3.6.1.4.1.9.1.516", "cisco-ios"),
        ("1.3.6.1.4.1.9.12.3.1.3.1955", "cisco-ios"),
        ("1.3.6.1.4.1.9.6.1.1004.28.6", "cisco-sb"),
        ("1.3.6.1.4.1.11.2.3.7.11.181", "procurve"),
        ("1.3.6.1.4.1.11.2.3.9.1", "standard"),  # a printer of the same house
        ("1.3.6.1.4.1.2011.2.23.304", "huawei"),
        ("1.3.6.1.4.1.2011.10.1.89", "comware"),  # from when the two were one
        ("1.3.6.1.4.1.25506.11.1.189", "comware"),
        ("1.3.6.1.4.1.8072.9999.9999", "standard"),
    ],
)
def test_the_longest_beginning_wins(object_id: str, name: str) -> None:
    assert driver_for(oid(object_id)).name == name


def test_a_switch_that_does_not_say_what_it_is_is_asked_by_the_standard() -> None:
    assert driver_for(None) is STANDARD
    assert driver_for(()) is STANDARD


def test_a_users_row_goes_before_ours() -> None:
    own = Driver("own", (oid("1.3.6.1.4.1.9"),))
    assert driver_for(oid("1.3.6.1.4.1.9.1.516"), (own, *DRIVERS)) is own
    assert driver_for(oid("1.3.6.1.4.1.9.6.1"), (own, *DRIVERS)).name == "cisco-sb"


@pytest.mark.parametrize("driver", [STANDARD, *DRIVERS], ids=lambda driver: driver.name)
def test_the_rows_are_sound(driver: Driver) -> None:
    assert driver.object_ids or driver is STANDARD
    assert driver.off not in (driver.on, *driver.also_on)
    assert [driver.is_on(value) for value in (driver.on, driver.off, 99)] == [True, False, None]
    assert all(driver.is_on(value) for value in driver.also_on)
    assert set(driver.index) <= INDEX_RULES.keys()
    assert driver.fdb in FDB_MODES
    assert {watts.source for watts in driver.watts} <= set(SOURCES)
    named = set(OBJECTS.values())
    columns = {driver.admin, driver.detection, driver.power_class, *(watts.column for watts in driver.watts)}
    assert columns - {None} <= named, "an error can name each"
    assert {caution.object[:-1] for caution in driver.cautions} <= named


def test_names_and_numbers_are_given_once() -> None:
    assert len({driver.name for driver in DRIVERS}) == len(DRIVERS)
    prefixes = [prefix for driver in DRIVERS for prefix in driver.object_ids]
    assert len(set(prefixes)) == len(prefixes)
    assert len(set(OBJECTS.values())) == len(OBJECTS)


def test_whose_object_it_is() -> None:
    assert STANDARD.is_standard
    assert not replace(STANDARD, admin=OBJECTS["tpPoePortStatus"]).is_standard
