/// The style sheet, the script and the icon of ``DebugPage``.
enum DebugAssets {
    static let style = """
        :root {
          color-scheme: light dark;
          --ground: #f6f7f9; --card: #ffffff; --text: #16191d; --faint: #4d5661; --line: #d9dee4;
          --accent: #0b6bcb; --good: #11703b; --bad: #b3261e; --hit: #1f8f56; --miss: #c8553d; --saved: #0b6bcb;
        }
        @media (prefers-color-scheme: dark) {
          :root {
            --ground: #0f1216; --card: #181d23; --text: #e8ecf1; --faint: #a3adb9; --line: #2c343d;
            --accent: #79b8ff; --good: #6fd39a; --bad: #ff9d93; --hit: #4cc38a; --miss: #f0836c; --saved: #58a6ff;
          }
        }
        * { box-sizing: border-box; }
        body { margin: 0; background: var(--ground); color: var(--text);
          font: 15px/1.45 system-ui, -apple-system, "Segoe UI", sans-serif; }
        header, main, footer { max-width: 78rem; margin: 0 auto; padding: 0 1.25rem; }
        header { padding-top: 1.25rem; display: grid; grid-template-columns: 1fr auto; gap: .5rem 1rem; align-items: center; }
        .title { display: flex; flex-wrap: wrap; align-items: baseline; gap: .25rem .9rem; min-width: 0; }
        h1 { margin: 0; font-size: 1.6rem; letter-spacing: -.02em; }
        h2 { margin: 0 0 .6rem; font-size: 1.05rem; }
        h3 { margin: 1rem 0 .4rem; font-size: .95rem; }
        code { font: .86em ui-monospace, "SFMono-Regular", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
        .id { color: var(--faint); }
        nav { grid-column: 1 / -1; display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; padding-bottom: .75rem;
          border-bottom: 1px solid var(--line); }
        a { color: var(--accent); }
        a:focus-visible, .scroll:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
        .skip { position: absolute; left: -100vw; }
        .skip:focus { left: 1rem; top: .5rem; background: var(--card); padding: .4rem .8rem; z-index: 1; }
        .badge { margin: 0; padding: .2rem .75rem; border: 1.5px solid currentColor; border-radius: 99px; font-weight: 600; }
        .good { color: var(--good); } .bad { color: var(--bad); }
        main { padding-top: 1rem; }
        section { background: var(--card); border: 1px solid var(--line); border-radius: .75rem; padding: 1rem 1.1rem;
          margin: 0 0 1rem; }
        .tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(10.5rem, 1fr)); gap: .25rem 1.25rem; }
        .tile h2 { margin: 0; font-size: .85rem; font-weight: 500; color: var(--faint); }
        .value { margin: .1rem 0 0; font-size: 1.65rem; font-weight: 650; font-variant-numeric: tabular-nums;
          letter-spacing: -.02em; white-space: nowrap; }
        .detail { margin: 0; font-size: .83rem; color: var(--faint); }
        .plots { display: grid; grid-template-columns: 1fr 1fr; gap: .25rem 1.75rem; }
        .plots h2, .reasons { grid-column: 1 / -1; }
        figure { margin: 0; min-width: 0; } figcaption { font-size: .9rem; color: var(--faint); margin-bottom: .35rem; }
        svg { display: block; width: 100%; height: 7rem; }
        .axis { stroke: var(--line); } rect.saved { fill: var(--saved); } rect.hit { fill: var(--hit); }
        rect.miss { fill: var(--miss); }
        .key { display: inline-block; width: .7em; height: .7em; border-radius: 2px; margin: 0 .35em 0 .6em; }
        .key:first-child { margin-left: 0; }
        .key.hit { background: var(--hit); } .key.miss { background: var(--miss); }
        .reasons { display: flex; flex-wrap: wrap; gap: .2rem 1.25rem; margin: .5rem 0 0; padding: 0; list-style: none;
          font-size: .88rem; color: var(--faint); }
        .scroll { overflow-x: auto; max-height: 27rem; overflow-y: auto; }
        table { border-collapse: collapse; width: 100%; font-size: .9rem; }
        th { text-align: left; font-weight: 500; color: var(--faint); position: sticky; top: 0; background: var(--card); }
        th, td { padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
        td:first-child { overflow-wrap: anywhere; min-width: 4.5rem; }
        .number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
        .source { white-space: nowrap; } .empty { margin: 0; color: var(--faint); }
        progress { width: 9rem; height: .8rem; accent-color: var(--accent); }
        dl { display: grid; grid-template-columns: minmax(8rem, auto) 1fr; gap: .3rem 1.25rem; margin: 0; }
        dt { color: var(--faint); overflow-wrap: anywhere; } dd { margin: 0; overflow-wrap: anywhere; }
        footer { color: var(--faint); font-size: .85rem; padding-bottom: 1.5rem; }
        .stale { color: var(--bad); }
        @media (max-width: 44rem) {
          .plots { grid-template-columns: 1fr; } header { grid-template-columns: 1fr; } .badge { justify-self: start; }
          dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; }
        }
        @media (prefers-reduced-motion: no-preference) { html { scroll-behavior: smooth; } }

        """

    static let script = """
        "use strict";
        // Puts the node's own markup in place every few seconds; pauses while the page is hidden, while text is selected and
        // while the keyboard's focus is in what would be replaced.
        (() => {
          const live = document.getElementById("live");
          const freshness = document.getElementById("freshness");
          const interval = 3000;
          let etag = null;
          const busy = () => {
            const selection = document.getSelection();
            return (selection && !selection.isCollapsed) || live.querySelector(":focus-visible");
          };
          async function refresh() {
            if (document.hidden || busy()) return;
            try {
              const response = await fetch("live", { cache: "no-store", signal: AbortSignal.timeout(10000) });
              if (!response.ok) throw new Error("status " + response.status);
              const positions = [...live.querySelectorAll(".scroll")].map((part) =>
                [part.getAttribute("aria-labelledby"), part.scrollTop, part.scrollLeft]);
              live.innerHTML = await response.text();
              for (const [name, top, left] of positions) {
                const part = live.querySelector(`.scroll[aria-labelledby="${name}"]`);
                if (part) { part.scrollTop = top; part.scrollLeft = left; }
              }
              freshness.textContent = "Updated at " + new Date().toISOString().slice(11, 19) + ".";
              freshness.className = "";
              document.title = document.title.replace(/^(Ready|Not ready)/,
                live.querySelector(".badge.good") ? "Ready" : "Not ready");
            } catch (error) {
              freshness.textContent = "The node does not answer; what is shown may be old.";
              freshness.className = "stale";
            }
          }
          setInterval(refresh, interval);
        })();

        """

    static let icon = """
        <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="7" fill="#0b6bcb"/>\
        <path d="M9 8h6v16H9zM17 8h6v16h-6z" fill="#fff" opacity=".92"/></svg>
        """
}
