"""The report's style sheet: readable on a phone, in the dark and on paper."""

STYLE = """
:root{--paper:#fff;--ink:#1b1f24;--quiet:#59636e;--rule:#d8dee4;--soft:#f6f8fa;--accent:#0b62c4;
--warn:#fff4ce;--warn-ink:#5c4400;--starting:#d97706}
@media(prefers-color-scheme:dark){:root{--paper:#0f1318;--ink:#e6eaef;--quiet:#9aa4b0;
--rule:#2b323b;--soft:#171c23;--accent:#6cb2ff;--warn:#3a3010;--warn-ink:#f4dc9a;--starting:#f0a94b}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,sans-serif;
overflow-wrap:anywhere}
main{max-width:64rem;margin:0 auto;padding:1.5rem 1rem 4rem}
h1{font-size:2rem;line-height:1.2;margin:0 0 .5rem}
h2{font-size:1.25rem;margin:2.5rem 0 .75rem;padding-top:1rem;border-top:1px solid var(--rule)}
h3{font-size:1rem;margin:1.5rem 0 .5rem}
h4{font-size:.85rem;font-weight:600;color:var(--quiet);margin:0 0 .25rem}
.kicker,.quiet,figcaption{color:var(--quiet);font-size:.85rem}
.kicker{margin:0}
.summary{font-size:1.15rem;margin:0}
.prompt{font-weight:600}
.pair{display:grid;gap:1rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,19rem),1fr))}
.strip{display:grid;gap:.5rem;grid-template-columns:repeat(auto-fill,minmax(6.5rem,1fr))}
.pair .strip{grid-template-columns:repeat(4,1fr)}
figure{margin:0}
img{display:block;width:100%;height:auto;border-radius:6px;background:var(--soft);
outline:1px solid var(--rule);outline-offset:-1px}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:.4rem .75rem .4rem 0;
border-bottom:1px solid var(--rule)}
thead th{color:var(--quiet);font-size:.85rem;font-weight:600;white-space:nowrap}
tbody th{font-weight:500;overflow-wrap:normal}
.settings th{width:min(40%,16rem)}
.number{white-space:nowrap;font-variant-numeric:tabular-nums}
.value{font-family:ui-monospace,monospace;font-size:.85rem}
.warning{background:var(--warn);color:var(--warn-ink);border-radius:6px;padding:.5rem 1rem;
margin-top:1rem}
.warning h3{margin:.25rem 0}
.warning ul{margin:.25rem 0;padding-left:1.25rem}
.chart{display:block;width:100%;height:auto;background:var(--soft);border-radius:6px}
.chart text{fill:var(--quiet);font:12px system-ui,sans-serif}
.chart polyline{fill:none;stroke:var(--accent);stroke-linejoin:round}
.chart .each{opacity:.3}
.chart .mean{stroke-width:2.5}
.chart .level{stroke:var(--rule)}
.chart .work,.mark.work{fill:var(--accent);background:var(--accent)}
.chart .startUp,.mark.startUp{fill:var(--starting);background:var(--starting)}
.chart .keeping,.mark.keeping{fill:var(--quiet);background:var(--quiet)}
.legend span{margin-right:1.25rem;white-space:nowrap}
.mark{display:inline-block;width:.8em;height:.8em;margin-right:.4em;border-radius:2px}
.chart .kept{stroke:var(--quiet);stroke-dasharray:4 4}
.unseen{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
@media print{section{break-inside:avoid}}
"""
