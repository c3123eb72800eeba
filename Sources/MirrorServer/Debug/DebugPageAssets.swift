extension DebugPage {
    static let icon = """
        <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="8" fill="#0f6674"/>\
        <path d="M7 15c0-5 4-8 9-8s9 3 9 8z" fill="#fff"/><path d="M7 18c0 5 4 8 9 8s9-3 9-8z" fill="#8fd6df"/></svg>
        """

    /// Colours have a contrast of at least 4.5 : 1 to what is below them (WCAG 2.2, 1.4.3).
    static let styleSheet = """
        :root{color-scheme:light dark;--page:#f3f6f7;--card:#fff;--text:#14252b;--soft:#4c5f66;--line:#d7e0e3;--track:#e6edef;
        --accent:#0b6374;--saved:#12899c;--taken:#5a6fc0;--given:#a2701a;--hit:#23875a;--miss:#c4552d;--good:#0f6a42;--good-back:#dcf3e7;
        --bad:#a02d16;--bad-back:#fce6e0;--warn:#7a4a00;--warn-back:#fdf0d5;--neutral:#44565d;--neutral-back:#e8eef0}
        @media (prefers-color-scheme:dark){:root{--page:#0d1518;--card:#152024;--text:#e4eef1;--soft:#a1b4bb;--line:#2a3a40;--track:#223137;
        --accent:#6fd0df;--saved:#3fb4c6;--taken:#8fa2ee;--given:#d9a64f;--hit:#4cbf8a;--miss:#ee8560;--good:#7fe0b0;--good-back:#12382a;
        --bad:#ffac95;--bad-back:#4a1f15;--warn:#f2c46d;--warn-back:#40300f;--neutral:#bccbd1;--neutral-back:#26353b}}
        *{box-sizing:border-box}
        body{margin:0;background:var(--page);color:var(--text);font:15px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;
        font-variant-numeric:tabular-nums}
        a{color:var(--accent)}
        a:focus-visible,button:focus-visible,input:focus-visible,.scroll:focus-visible{outline:3px solid var(--accent);outline-offset:2px}
        .skip{position:absolute;left:-999px;top:0}
        .skip:focus{left:8px;top:8px;background:var(--card);padding:8px 12px;z-index:2}
        .top{display:flex;flex-wrap:wrap;align-items:center;gap:8px 18px;padding:14px 24px;background:var(--card);border-bottom:1px solid var(--line)}
        .brand{display:flex;align-items:center;gap:10px}
        h1{font-size:20px;margin:0;letter-spacing:-.01em}
        .live{margin:0;color:var(--soft);font-size:13px}
        nav{margin-left:auto;display:flex;gap:16px}
        main{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:16px;max-width:1320px;margin:0 auto;padding:20px 24px}
        .card{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:16px 20px;min-width:0}
        .wide{grid-column:1/-1}
        h2{font-size:15px;margin:0 0 12px}
        h3{font-size:13px;margin:14px 0 6px;color:var(--soft)}
        dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:6px 16px;margin:0}
        dt{color:var(--soft)}
        dd{margin:0;overflow-wrap:anywhere}
        .id{font-family:ui-monospace,"SFMono-Regular",Menlo,"DejaVu Sans Mono",monospace;font-size:.88em;font-weight:400}
        .badge{display:inline-block;padding:1px 9px;border-radius:99px;font-size:12.5px;font-weight:600;color:var(--neutral);background:var(--neutral-back);white-space:nowrap}
        .good{color:var(--good);background:var(--good-back)}
        .bad{color:var(--bad);background:var(--bad-back)}
        .warn{color:var(--warn);background:var(--warn-back)}
        #findings-body:empty{display:none}
        .findings{list-style:none;margin:8px 0 0;padding:0}
        .findings li{padding:6px 0;overflow-wrap:anywhere}
        .findings pre{margin:6px 0 0;padding:8px 12px;border-radius:8px;background:var(--page);white-space:pre-wrap}
        .alert{margin:0 0 12px;padding:8px 12px;border-radius:8px;color:var(--bad);background:var(--bad-back);overflow-wrap:anywhere}
        .none,.hint,.reasons{color:var(--soft);margin:4px 0}
        .tiles{display:grid;grid-template-columns:repeat(4,minmax(0,1fr));gap:12px;margin-bottom:14px}
        .tiles strong{display:block;font-size:22px;line-height:1.2;letter-spacing:-.02em;white-space:nowrap}
        .tiles span{color:var(--soft);font-size:13px}
        .plots{display:grid;grid-template-columns:repeat(4,minmax(0,1fr));gap:16px 24px}
        .reasons{grid-column:1/-1}
        figure{margin:0 0 8px;display:flex;flex-direction:column;justify-content:flex-end}
        figcaption{display:flex;flex-wrap:wrap;justify-content:space-between;gap:0 8px;font-size:13px;color:var(--soft)}
        figcaption b{color:var(--text)}
        .plot{display:block;width:100%;height:72px;margin-top:6px}
        .axis{display:flex;justify-content:space-between;font-size:12px;color:var(--soft)}
        svg .base{fill:var(--line)}svg .track{fill:var(--track)}svg .saved{fill:var(--saved)}svg .taken{fill:var(--taken)}svg .given{fill:var(--given)}
        svg .hit{fill:var(--hit)}svg .miss{fill:var(--miss)}svg .wait{fill:var(--given)}
        .key{white-space:nowrap;margin-left:8px}
        .key::before{content:"";display:inline-block;width:8px;height:8px;border-radius:2px;margin-right:4px;background:var(--hit)}
        .key.miss::before{background:var(--miss)}
        .bars,.providers{list-style:none;margin:8px 0 0;padding:0}
        .bars li{display:grid;grid-template-columns:minmax(0,1fr) minmax(0,1fr) max-content;gap:12px;align-items:center}
        .name{overflow-wrap:anywhere}
        .meter,.fall{display:block;width:100%;height:8px;border-radius:4px}
        .fall{height:12px;min-width:220px;border-radius:2px}
        .scroll{overflow:auto;max-height:420px;margin:0 -20px -8px;padding:0 20px 4px}
        table{border-collapse:collapse;width:100%;font-size:13.5px}
        th,td{text-align:left;padding:6px 14px 6px 0;border-top:1px solid var(--line);vertical-align:top;font-weight:400}
        thead th{position:sticky;top:0;background:var(--card);color:var(--soft);font-size:12.5px;border-top:0;white-space:nowrap}
        tbody th{font-weight:600;overflow-wrap:anywhere}
        tbody th small,td small{display:block;color:var(--soft);font-weight:400;font-size:12px}
        td small{display:inline}
        .number{text-align:right;white-space:nowrap}
        .bars .number{font-weight:600}
        tbody .target{font-weight:400;min-width:300px;max-width:520px;overflow-wrap:anywhere}
        .source,td.id,th.id,tbody th small{white-space:nowrap}
        #transfers th,#measure tbody th,#images th{min-width:150px}
        progress{width:160px;height:10px;accent-color:var(--saved)}
        .measure{display:flex;flex-wrap:wrap;gap:8px 10px;align-items:center}
        .measure input{flex:1 1 260px;min-width:0;font:inherit;padding:8px 12px;border:1px solid var(--soft);border-radius:8px;background:var(--page);color:var(--text)}
        .measure input::placeholder{color:var(--soft);opacity:1}
        button{font:inherit;font-weight:600;padding:8px 16px;border-radius:8px;border:1px solid var(--accent);background:var(--accent);color:var(--card);cursor:pointer}
        button[type=button]{background:transparent;color:var(--accent)}
        button:disabled{opacity:.55;cursor:default}
        #measure-status:empty{display:none}
        footer{max-width:1320px;margin:0 auto;padding:0 24px 28px;color:var(--soft);font-size:13px}
        @media (max-width:960px){.plots{grid-template-columns:repeat(2,minmax(0,1fr))}}
        @media (max-width:720px){main{grid-template-columns:minmax(0,1fr);padding:12px;gap:12px}.top{padding:12px 16px}nav{margin-left:0}
        .tiles{grid-template-columns:repeat(2,minmax(0,1fr))}.card{padding:14px 16px}.scroll{margin:0 -16px -6px;padding:0 16px 4px}.plots{gap:12px 16px}
        table{min-width:640px}footer{padding:0 16px 24px}}
        @media (max-width:420px){.plots{grid-template-columns:minmax(0,1fr)}}
        """

    /// Asks for the page every 2 s while it is visible, and takes over the parts that differ; parts in which the reader has the
    /// focus or a selection wait. Nothing is made from text here: the parts were escaped by the server.
    static let script = """
        "use strict";
        const live = document.getElementById("live");
        const form = document.getElementById("measure-form");
        const start = document.getElementById("measure-start");
        const cancel = document.getElementById("measure-cancel");
        const message = document.getElementById("measure-status");
        let timer, isAsking = false;

        function isInUse(part) {
          const selection = document.getSelection();
          return selection && !selection.isCollapsed && part.contains(selection.anchorNode);
        }

        function take(page) {
          for (const fresh of page.querySelectorAll("[data-live]")) {
            const old = document.getElementById(fresh.id);
            if (!old || isInUse(old)) continue;
            if (fresh.dataset.phase !== undefined) old.dataset.phase = fresh.dataset.phase;
            if (old.innerHTML === fresh.innerHTML) continue;
            const focused = old.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
            const places = [...old.querySelectorAll(".scroll")].map(item => [item.scrollLeft, item.scrollTop]);
            old.replaceChildren(...fresh.childNodes);
            old.querySelectorAll(".scroll").forEach((item, index) => {
              if (places[index]) [item.scrollLeft, item.scrollTop] = places[index];
              if (focused && item.getAttribute("aria-label") === focused) item.focus({preventScroll: true});
            });
          }
          document.title = page.title;
          live.textContent = page.getElementById("live").firstChild.textContent + ", live";
          updateForm();
        }

        function updateForm() {
          if (!form) return;
          const isRunning = document.getElementById("measure-body").dataset.phase === "running";
          start.disabled = isRunning;
          cancel.disabled = !isRunning;
        }

        async function refresh() {
          clearTimeout(timer);
          if (document.hidden || isAsking) return;
          isAsking = true;
          let wait = 2000;
          try {
            const response = await fetch("./", {cache: "no-store", signal: AbortSignal.timeout(10000)});
            if (!response.ok) throw new Error(response.status);
            take(new DOMParser().parseFromString(await response.text(), "text/html"));
            if (form && document.getElementById("measure-body").dataset.phase === "running") wait = 400;
          } catch {
            live.textContent = "No answer from the node; trying again";
            wait = 5000;
          }
          isAsking = false;
          timer = setTimeout(refresh, wait);
        }

        async function post(path) {
          message.textContent = "";
          try {
            const response = await fetch(path, {method: "POST", headers: {"X-Requested-With": "spegel"}});
            if (!response.ok) message.textContent = "Not done: " + (await response.text()).trim();
          } catch {
            message.textContent = "No answer from the node.";
          }
          refresh();
        }

        if (form) {
          form.addEventListener("submit", event => {
            event.preventDefault();
            post("measure?image=" + encodeURIComponent(document.getElementById("image").value.trim()));
          });
          cancel.addEventListener("click", () => post("measure/cancel"));
          updateForm();
        }
        document.addEventListener("visibilitychange", refresh);
        timer = setTimeout(refresh, 2000);
        """
}
