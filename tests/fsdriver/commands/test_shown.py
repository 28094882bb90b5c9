from fsdriver.commands.shown import end_shown, ranges_shown, shown


def test_nothing_but_what_can_be_seen_is_shown():
    assert shown("a b\n\x1b[2J\u202e\\\udcff文件") == "a b\\n\\x1b[2J\\u202e\\\\\\xff文件"


def test_the_end_of_a_path_takes_just_its_columns():
    assert end_shown("a/b", 5) == "a/b  "
    assert end_shown("folder/name", 5) == "/name"
    assert end_shown("x/文件", 4) == "文件"
    assert end_shown("x/文件", 3) == "件 "
    assert end_shown("", 2) == "  "


def test_ranges_are_counted_as_people_count():
    assert ranges_shown([(0, 1), (4, 8)], 5) == ["bytes 0 to 0 (1)", "bytes 4 to 7 (4)"]
    assert ranges_shown([(0, 1)] * 4, 2)[1:] == ["bytes 0 to 0 (1)", "2 more ranges"]
