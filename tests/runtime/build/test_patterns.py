"""Patterns of names: what Go's filepath.Match does with them, ** besides, and what .dockerignore makes of its lines."""

import pytest

from swarmd.runtime.build.patterns import BadPattern, ignoring, leaving_out, matches


@pytest.mark.parametrize(
    ("pattern", "path", "match"),
    [
        ("abc", "abc", True),
        ("*", "abc", True),
        ("*c", "abc", True),
        ("a*", "a", True),
        ("a*", "ab/c", False),
        ("a*/b", "abc/b", True),
        ("a*/b", "a/c/b", False),
        ("a*b*c*d*e*/f", "axbxcxdxexxx/f", True),
        ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", False),
        ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", False),
        ("a*b?c*x", "abxbbxdbxebxczzx", True),
        ("a*b?c*x", "abxbbxdbxebxczzy", False),
        ("*ab*ab", "xabyababab", True),
        ("ab[c]", "abc", True),
        ("ab[b-d]", "abc", True),
        ("ab[e-g]", "abc", False),
        ("ab[^b-d]", "abc", False),
        ("ab[^e-g]", "abc", True),
        ("a\\*b", "a*b", True),
        ("a\\*b", "ab", False),
        ("a?b", "a☺b", True),
        ("a[^a]b", "a☺b", True),
        ("a???b", "a☺b", False),
        ("[a-ζ]*", "α", True),
        ("*[a-ζ]", "A", False),
        ("a?b", "a/b", False),
        ("[\\]a]", "]", True),
        ("[\\-]", "-", True),
        ("[x\\-]", "-", True),
        ("[x\\-]", "z", False),
        ("[\\-x]", "a", False),
        ("[z-a]", "m", False),
        ("[^z-a]", "m", True),
        ("a[!b]c", "a!c", True),
        ("a.|)$(}+{bc", "a.|)$(}+{bc", True),
        ("abc?def", "abcdef", False),
        ("a\nb", "a\nb", True),
        ("a", "a\n", False),
    ],
)
def test_single_names_are_matched_as_go_does(pattern: str, path: str, match: bool) -> None:
    assert matches(pattern, path) is match


@pytest.mark.parametrize(
    ("pattern", "path", "match"),
    [
        ("**", "dir/file", True),
        ("**/**", "dir/file", True),
        ("dir/**", "dir/file", True),
        ("dir/**", "dir", False),
        ("**file", "dir/dir/file", True),
        ("**file", "afile", False),
        ("**/file*txt", "dir/dir/file.txt", True),
        ("**/**/*.txt", "file.txt", True),
        ("**/**/*.txt2", "dir/dir/file.txt", False),
        ("a**/*.txt", "a/dir/file.txt", True),
        ("a**b", "ab", True),
        ("a**b", "a/x/b", True),
        ("a**b", "axb", False),
        ("a/*.txt**", "a/file.txt", True),
        ("**/.foo", "bar.foo", False),
        ("x/**/y/**/z", "x/1/y/y/2/3/z", True),
        ("x/**/y/**/z", "x/z", False),
    ],
)
def test_two_stars_are_any_number_of_directories(pattern: str, path: str, match: bool) -> None:
    assert matches(pattern, path) is match


@pytest.mark.parametrize(
    "pattern", ["[", "[^", "[^bc", "a[", "a/b[", "[]a]", "[-]", "[x-]", "[-x]", "[a-b-c]", "a\\", "[]", "[^]"]
)
def test_a_pattern_that_go_calls_bad_is_refused_whatever_is_there(pattern: str) -> None:
    with pytest.raises(BadPattern, match="the pattern '"):
        matches(pattern, "nothing")
    with pytest.raises(BadPattern, match="the pattern '"):
        ignoring(f"fine\n{pattern}\n")


@pytest.mark.parametrize(
    ("text", "path", "left_out"),
    [
        ("a", "a/b/c", True),
        ("a", "ab", False),
        ("a", "b/a", False),
        ("**/a", "b/a/c", True),
        ("/a/", "a", True),
        ("./a", "a", True),
        ("a/../b", "b", True),
        ("../a", "a", False),
        ("../../a", "a", False),
        ("/../a", "a", True),
        ("*\n!a", "a/b", False),
        ("*\n!a\na/b", "a/b/c", True),
        ("*\n! a", "a", False),
        ("!a\n*", "a", True),
        ("*.md\n!README.md", "README.md", False),
        ("*.md", "sub/x.md", False),
        ("# a\na", "a", True),
        ("#a", "#a", False),
        (" #a", "#a", True),
        ("\ufeffa\r\nb\r\n", "b", True),
        ("  a  ", "a", True),
        (".", "a", False),
        ("/", "a", False),
        ("", "a", False),
        ("*", ".hidden", True),
        ("a/**", "a", False),
        ("a/**", "a/b", True),
        ("a*\n!ab*\nabc*", "abc/d", True),
        ("x\x0by", "x\x0by", True),
        ("a", "a\n", False),
    ],
)
def test_lines_of_dockerignore(text: str, path: str, left_out: bool) -> None:
    assert bool(ignoring(text)(path)) is left_out


def test_an_exclamation_mark_alone_is_refused() -> None:
    with pytest.raises(BadPattern, match="takes nothing back"):
        leaving_out(["!"])


@pytest.mark.timeout(20)
def test_many_stars_take_no_longer_than_the_name() -> None:
    assert not matches("a*" * 60 + "b", "a" * 250)
    assert not ignoring("*a" * 60 + "b\n" + "**/" * 60 + "c\n")("/".join(["a" * 60] * 60))
