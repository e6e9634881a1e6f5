-- Each wrk thread sends rows of its own, and every answer must be one that is due to this thread. Which of its
-- connections it came by wrk does not tell a script.
-- The file named on the command line has one request a line: method, path, body and expected answer, split by tabs.

local threads = {}

function setup(thread)
  thread:set("id", #threads)
  table.insert(threads, thread)
end

function init(args)
  wrong, requests, expected, sent = 0, {}, {}, 0
  local number, total = 0, tonumber(args[2])
  for line in io.lines(args[1]) do
    if number % total == id then
      local method, path, body, answer = line:match("^([^\t]*)\t([^\t]*)\t([^\t]*)\t(.*)$")
      local headers = { ["Content-Type"] = "application/json" }
      table.insert(requests, wrk.format(method, path, headers, body ~= "" and body or nil))
      expected[answer] = true
    end
    number = number + 1
  end
end

function request()
  sent = sent + 1
  return requests[(sent - 1) % #requests + 1]
end

function response(status, headers, body)
  if status ~= 200 or not expected[body] then
    wrong = wrong + 1
  end
end

function done(summary, latency, requests)
  local wrong = 0
  for _, thread in ipairs(threads) do
    wrong = wrong + tonumber(thread:get("wrong"))
  end
  local errors = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  io.write(string.format(
    '\n{"requests": %d, "seconds": %.6f, "p50": %.6f, "p99": %.6f, "wrong": %d, "errors": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e6, latency:percentile(99) / 1e6, wrong, errors))
end
