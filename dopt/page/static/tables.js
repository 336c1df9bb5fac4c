// Tables that sort and filter, and what can be taken away: the sweep file, and the runs as CSV.

const sortable = (box) => {
  const body = box.querySelector("tbody");
  const heads = [...box.querySelectorAll("thead th")];
  const rows = [...body.rows];
  const key = (row, i) => row.cells[i].dataset.value ?? row.cells[i].textContent;
  const compare = (a, b) => {
    const [x, y] = [Number(a), Number(b)];
    if (Number.isNaN(x) !== Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;
    return Number.isNaN(x) ? a.localeCompare(b) : x - y;
  };
  heads.forEach((head, i) => head.querySelector("button").addEventListener("click", () => {
    const way = head.ariaSort === "ascending" ? "descending" : "ascending";
    heads.forEach((other) => other.setAttribute("aria-sort", other === head ? way : "none"));
    const sign = way === "ascending" ? 1 : -1;
    const js = (text) => text.replace("-inf", "-Infinity").replace(/^inf/, "Infinity");
    rows.sort((a, b) => sign * compare(js(key(a, i)), js(key(b, i))));
    body.append(...rows);
  }));
  const filter = box.querySelector(".filter");
  const count = box.querySelector(".count");
  const apply = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    rows.forEach((row) => {
      const cells = [...row.cells].map((cell) => cell.textContent.toLowerCase());
      row.hidden = !words.every((word) => cells.some((cell) => cell.includes(word)));
    });
    count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
  };
  filter.addEventListener("input", apply);
  apply();
};

// RFC 4180; what is missing is empty.
const csv = (columns) => {
  const names = Object.keys(columns);
  const cell = (x) => {
    const text = x === null ? "" : x === true ? "True" : x === false ? "False" : String(x);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const rows = columns.id.map((_, i) => names.map((name) => cell(columns[name][i])).join(","));
  return `${[names.map(cell).join(","), ...rows].join("\n")}\n`;
};

const takeaways = (page) => {
  document.querySelectorAll(".sortable").forEach(sortable);
  one("csv").addEventListener("click", () => {
    const place = URL.createObjectURL(new Blob([csv(page.runs)], { type: "text/csv" }));
    element("a", { href: place, download: "runs.csv" }).click();
    URL.revokeObjectURL(place);
  });
  document.querySelectorAll("button.copy").forEach((button) => button.addEventListener("click", async () => {
    const text = page.content.question.files[Number(button.dataset.file)];
    const before = button.textContent;
    button.textContent = (await copied(text)) ? "Copied" : "Select the text below, and copy it";
    setTimeout(() => {
      button.textContent = before;
    }, 2000);
  }));
};

// Whether the text is in the clipboard. A page that was opened as a file may not write to it in every browser; the old way works there.
const copied = async (text) => {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = element("textarea", { readonly: "" });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
};
