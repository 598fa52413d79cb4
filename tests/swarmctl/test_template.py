"""The part of Go's templates that --format has."""

import pytest

from swarmd.swarmctl.template import TemplateError, render

DATA = {"Name": "web", "Tags": ["a", "b"], "Labels": {"zone.eu": "1"}, "On": True, "N": 3, "Spec": {"Image": "demo"}}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{.Name}}", "web"),
        ("{{ .Spec.Image }} {{.N}}", "demo 3"),
        ("{{json .Tags}}", '["a","b"]'),
        ("{{.Tags}} {{.On}}", "[a b] true"),
        ("{{range .Tags}}<{{.}}>{{end}}", "<a><b>"),
        ("{{range .Missing}}x{{else}}none{{end}}", "none"),
        ("{{range .Tags}}{{$.Name}}{{end}}", "webweb"),
        ("{{if .On}}yes{{else}}no{{end}}{{if .Missing}}!{{end}}", "yes"),
        ('{{if eq .Name "web"}}{{range .Tags}}{{.}}{{end}}{{else}}-{{end}}.', "ab."),
        ('{{index .Labels "zone.eu"}}{{index .Tags 1}}', "1b"),
        ('{{join .Tags ", "}} {{.Name | upper}} {{len .Tags}}', "a, b WEB 2"),
        ("{{println .Name}}", "web\n"),
        ("{{upper (index .Tags 0)}}", "A"),
        ("a {{- .N -}} b", "a3b"),
    ],
)
def test_renders(template: str, text: str) -> None:
    assert render(template, DATA) == text


@pytest.mark.parametrize("template", ["{{.Name", "{{end}}", "{{range .Tags}}", "{{frob .Name}}", "{{index .Tags 9}}"])
def test_refuses(template: str) -> None:
    with pytest.raises(TemplateError, match="template: "):
        render(template, DATA)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{with .Spec}}{{.Image}}{{end}}{{with .Missing}}x{{else}}none{{end}}", "demonone"),
        ("{{if .Missing}}a{{else if .On}}b{{else}}c{{end}}.", "b."),
        ("{{range $i, $tag := .Tags}}{{$i}}{{$tag}}{{end}}", "0a1b"),
        ("{{range $key, $value := .Labels}}{{$key}}={{$value}}{{end}}", "zone.eu=1"),
        ("{{range $tag := .Tags}}{{$tag}}{{end}}", "ab"),
        ("{{$name := .Name}}{{range .Tags}}{{$name}}{{end}}", "webweb"),
        ("{{/* not shown */}}{{.Name}}", "web"),
        ('{{printf "%-5s|%03d|%q|%v|%.1f|%%" .Name .N .Name .Tags .N}}', 'web  |003|"web"|[a b]|3.0|%'),
        ("{{and .On .Name}} {{or .Missing .Name}} {{not .On}}", "web web false"),
        ("{{if and (gt .N 2) (le .N 3)}}yes{{end}}{{lt .N 3}}{{ge .N 3}}", "yesfalsetrue"),
        ('{{eq .Name "a" "web"}} {{ne .N 4}}', "true true"),
        ('{{title .Name}} {{lower "ABC"}} {{truncate .Name 2}} {{slice .Name 1 3}}', "Web abc we eb"),
        ('{{join (split "a/b" "/") "-"}} {{pad .Name 1 1}}|', "a-b  web |"),
        ('{{(index .Tags 0) | upper | printf "%s!"}}', "A!"),
        ('{{index .Labels "missing"}}', "<no value>"),
        ('{{range .Tags}}{{if eq . "a"}}first{{else}}other{{end}} {{end}}', "first other "),
    ],
)
def test_renders_what_scripts_use(template: str, text: str) -> None:
    assert render(template, DATA) == text


@pytest.mark.parametrize(
    "template", ["{{$x}}", "{{if}}", "{{range}}a{{end}}", "{{| upper}}", "{{upper}}", "{{slice .Name 9 20}}"]
)
def test_refuses_in_one_sentence(template: str) -> None:
    with pytest.raises(TemplateError, match="template: "):
        render(template, DATA)
