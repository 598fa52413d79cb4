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
