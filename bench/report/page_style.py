"""The report's style sheet: light and dark, one column on a phone, colours of Okabe and Ito."""

STYLE = """
:root { color-scheme: light dark; --back: #fff; --fore: #1c1f23; --soft: #5b636d; --grid: #e3e6ea;
  --edge: #d5d9de; --box: #fff; --s0: #0072b2; --s1: #d55e00; --s2: #009e73; --s3: #b3578f; }
@media (prefers-color-scheme: dark) { :root { --back: #14171a; --fore: #e7eaee; --soft: #a4adb8;
  --grid: #2b3138; --edge: #343b43; --box: #1a1e22; --s0: #56b4e9; --s1: #e69f00; --s2: #1fbf91;
  --s3: #cc79a7; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 1.2rem 1rem 4rem; background: var(--back);
  color: var(--fore); font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin: 0 0 .5rem; } h2 { font-size: 1.25rem; margin: 2.6rem 0 .3rem; }
h3 { font-size: 1.05rem; margin: 1.4rem 0 .5rem; }
h4 { font-size: .9rem; line-height: 1.3; margin: 0 0 .4rem; }
p, li { max-width: 46rem; } a { color: var(--s0); }
.grid { display: grid; gap: .8rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); }
figure { margin: 0; padding: .8rem; border: 1px solid var(--edge); border-radius: 8px;
  background: var(--box); max-width: 460px; }
figcaption, .note { font-size: .85rem; color: var(--soft); }
figcaption { margin-top: .4rem; } .note { max-width: none; }
.absent { padding: .7rem .9rem; border: 1px dashed var(--edge); border-radius: 8px;
  color: var(--soft); }
code { font-size: .9em; }
svg { display: block; width: 100%; height: auto; }
svg text { font: 11px system-ui, sans-serif; fill: var(--fore); }
svg text.value { font-weight: 600; } svg text.count { font-size: 9.5px; fill: var(--soft); }
.s0 { --c: var(--s0); } .s1 { --c: var(--s1); } .s2 { --c: var(--s2); } .s3 { --c: var(--s3); }
.line, .thick { fill: none; stroke: var(--c); stroke-width: 1.8; stroke-linejoin: round; }
.thick { stroke-width: 9; stroke-opacity: .4; }
.d1 { stroke-dasharray: 6 4; } .d2 { stroke-dasharray: 2 3; } .d3 { stroke-dasharray: 9 3 2 3; }
.mark { fill: var(--c); stroke: var(--box); stroke-width: .8; }
.bar { fill: var(--c); fill-opacity: .65; } .fill { fill: var(--c); fill-opacity: .4; }
.grid-line { stroke: var(--grid); } .axis { fill: none; stroke: var(--soft); }
.whisker { stroke: var(--fore); stroke-width: 1.4; }
.chance { stroke: var(--soft); stroke-dasharray: 3 3; }
.tau { stroke: var(--fore); stroke-width: 1.4; stroke-dasharray: 5 3; }
@media print { figure { break-inside: avoid; } }
"""
