// What the page says, in English and Chinese. `{name}` is filled in.

const ENGLISH = {
  title: "Which action is it?",
  model: "Model {name} · {classes} classes · trained for {steps} steps",
  model_version: "Model {name}, version {version} · {classes} classes · trained for {steps} steps",
  other_language: "中文",
  loading: "The model is not ready yet. This page asks again by itself.",
  key_label: "Key of this server",
  key_use: "Use it",
  key_note: "It stays in this tab until you close it, and is sent to this server only.",
  key_needed: "This server answers only those who have a key.",
  video: "Video",
  drop: "Drop a video here, or",
  choose: "Choose a video",
  record: "Record with the camera",
  stop: "Stop recording",
  recording: "Recording",
  save: "Save the recording",
  uri_label: "Or the address of a video that this server may read",
  uri_use: "Take it",
  size: "{name} · {size}",
  size_and_length: "{name} · {size} · {time}",
  unplayable: "This browser cannot show the file; the model may still be able to read it.",
  not_shown: "The server fetches this video. It is not shown here: this page loads nothing from elsewhere.",
  one_at_a_time: "One video at a time: {name} was taken.",
  modes: "What to ask",
  mode_clip: "One answer for the whole video",
  mode_timeline: "A timeline: what happens when",
  ask: "Classify",
  cancel: "Cancel",
  uploading: "Uploading",
  looking: "The model looks at the video …",
  windows: "{done} of {all} windows",
  cancelled: "Cancelled.",
  again: "The server is busy. Next try in {seconds} s.",
  done: "Done: {what}.",
  answer: "Answer",
  nothing_yet: "Choose a video and press “Classify”.",
  unsure: "unsure",
  none_shown: "none of the classes",
  threshold: "The line is at {share}: below it, the model calls itself unsure.",
  moment: "{start} to {end}",
  closer: "Show the frames of this window",
  segments: "Segments",
  segments_found: "{number} segments",
  frames: "The {number} frames that the model saw",
  frame: "frame at {time}",
  band: "Timeline: arrow keys move, Page Up and Page Down go from segment to segment",
  at: "{time}: {what}",
  nothing_there: "nothing",
  took: "The server took {seconds} s; decoded with {backend}.",
  took_windows: "{number} windows of {window} s, one every {stride} s.",
  command: "The same on the command line",
  key_in_command: "$IVCP_KEY is the key: export IVCP_KEY=… first.",
  copy: "Copy",
  copied: "Copied.",
  not_copied: "The text is selected: copy it with the keyboard.",
  labels: "What this model can tell apart",
  camera_insecure: "A browser lets a page use the camera only over https, or on the server's own machine. On a phone, “Choose a video” offers the camera too.",
  camera_unsupported: "This browser cannot record. Choose a video instead.",
  camera_denied: "The camera was not allowed. Allow it in the browser's settings for this page, and try again.",
  camera_missing: "There is no camera. Choose a video instead.",
  camera_busy: "The camera cannot be read: another program may be using it.",
  problem: "That did not work.",
  problem_unreachable: "The server cannot be reached, or broke off. Check the connection and try again.",
  problem_too_large_to_send: "{name} has {size}; this server takes at most {most}. Send fewer seconds of it, or a smaller picture.",
  problem_key_missing: "This server needs a key.",
  problem_key_unknown: "The server does not know this key.",
  problem_key_not_allowed: "This key may not do that.",
  problem_uri_forbidden: "This server may not read from that address.",
  problem_uri_not_found: "There is no video at that address.",
  problem_uri_too_large: "The video at that address is too large.",
  problem_uri_failed: "The other server failed to send the video.",
  problem_uri_timeout: "The other server was too slow.",
  problem_upload_timeout: "The upload took too long.",
  problem_body_too_large: "The file is too large.",
  problem_bad_request_fields: "The request does not fit.",
  problem_too_many_tokens: "The video is too long for this model.",
  problem_rate_limited: "Too many requests with this key: wait a little.",
  problem_non_finite: "The model computed no proper answer for this video.",
  problem_internal: "The server failed.",
  problem_loading: "The model is still loading.",
  problem_not_ready: "The server is not ready.",
  problem_draining: "This server is being stopped.",
  problem_overloaded: "The server has too much to do.",
  problem_no_decoder: "The server cannot decode videos at the moment.",
  problem_deadline_exceeded: "It took too long.",
  problem_video_empty: "The file is empty.",
  problem_video_not_a_video: "The file is no video.",
  problem_video_no_video_stream: "The file holds no pictures.",
  problem_video_unknown_codec: "The video's codec is not known here.",
  problem_video_encrypted: "The video is encrypted.",
  problem_video_zero_frames: "No picture of the video can be decoded.",
  problem_video_damaged: "The video is damaged.",
  problem_video_truncated: "The video was cut off.",
  problem_video_wrong_count: "The video has fewer pictures than it says.",
  problem_video_span_outside_video: "That part lies outside of the video.",
  problem_video_too_large: "The video's picture is too large.",
  problem_video_out_of_memory: "The video takes too much memory.",
  problem_video_timeout: "Decoding the video took too long.",
  problem_video_crashed: "The decoder crashed on this video.",
};

const CHINESE = {
  title: "视频里是什么动作？",
  model: "模型 {name} · {classes} 个类别 · 训练了 {steps} 步",
  model_version: "模型 {name}，版本 {version} · {classes} 个类别 · 训练了 {steps} 步",
  other_language: "English",
  loading: "模型尚未就绪，本页会自动重试。",
  key_label: "此服务器的密钥",
  key_use: "使用",
  key_note: "密钥只保存在此标签页中，关闭后即删除，并且只发送给此服务器。",
  key_needed: "此服务器只回答持有密钥的请求。",
  video: "视频",
  drop: "将视频拖到此处，或",
  choose: "选择视频",
  record: "用摄像头录制",
  stop: "停止录制",
  recording: "正在录制",
  save: "保存录像",
  uri_label: "或输入此服务器可以读取的视频地址",
  uri_use: "使用此地址",
  size: "{name} · {size}",
  size_and_length: "{name} · {size} · {time}",
  unplayable: "浏览器无法播放此文件，但模型也许能够读取。",
  not_shown: "视频由服务器读取，不在此处显示：本页不从其他地方加载任何内容。",
  one_at_a_time: "一次只能处理一个视频：已选用 {name}。",
  modes: "提问方式",
  mode_clip: "整个视频一个答案",
  mode_timeline: "时间线：何时发生了什么",
  ask: "分类",
  cancel: "取消",
  uploading: "正在上传",
  looking: "模型正在观看视频……",
  windows: "{done} / {all} 个窗口",
  cancelled: "已取消。",
  again: "服务器繁忙，{seconds} 秒后重试。",
  done: "完成：{what}。",
  answer: "结果",
  nothing_yet: "请选择视频，然后点击“分类”。",
  unsure: "不确定",
  none_shown: "没有任何类别",
  threshold: "竖线位于 {share}：低于它时，模型认为自己不确定。",
  moment: "{start} 至 {end}",
  closer: "显示此窗口的帧",
  segments: "片段",
  segments_found: "{number} 个片段",
  frames: "模型看到的 {number} 帧",
  frame: "{time} 处的帧",
  band: "时间线：方向键移动，Page Up 和 Page Down 在片段之间跳转",
  at: "{time}：{what}",
  nothing_there: "无",
  took: "服务器用时 {seconds} 秒；解码器：{backend}。",
  took_windows: "{number} 个窗口，每个 {window} 秒，间隔 {stride} 秒。",
  command: "在命令行中完成同样的操作",
  key_in_command: "$IVCP_KEY 是密钥：请先执行 export IVCP_KEY=…",
  copy: "复制",
  copied: "已复制。",
  not_copied: "文本已选中：请用键盘复制。",
  labels: "此模型可以区分的动作",
  camera_insecure: "浏览器只允许 https 页面或服务器本机使用摄像头。在手机上，“选择视频”也可以拍摄。",
  camera_unsupported: "此浏览器不支持录制，请选择视频文件。",
  camera_denied: "未获得摄像头权限。请在浏览器设置中允许本页使用摄像头，然后重试。",
  camera_missing: "没有找到摄像头，请选择视频文件。",
  camera_busy: "无法读取摄像头：可能正被其他程序使用。",
  problem: "操作失败。",
  problem_unreachable: "无法连接服务器，或连接中断。请检查网络后重试。",
  problem_too_large_to_send: "{name} 有 {size}，而此服务器最多接受 {most}。请截取较短的一段，或降低分辨率。",
  problem_key_missing: "此服务器需要密钥。",
  problem_key_unknown: "服务器不认识此密钥。",
  problem_key_not_allowed: "此密钥没有相应权限。",
  problem_uri_forbidden: "此服务器不允许读取该地址。",
  problem_uri_not_found: "该地址没有视频。",
  problem_uri_too_large: "该地址的视频过大。",
  problem_uri_failed: "对方服务器未能发送视频。",
  problem_uri_timeout: "对方服务器响应过慢。",
  problem_upload_timeout: "上传时间过长。",
  problem_body_too_large: "文件过大。",
  problem_bad_request_fields: "请求内容不符合要求。",
  problem_too_many_tokens: "视频对此模型来说过长。",
  problem_rate_limited: "此密钥的请求过于频繁，请稍候。",
  problem_non_finite: "模型未能对此视频算出有效结果。",
  problem_internal: "服务器出错。",
  problem_loading: "模型仍在加载。",
  problem_not_ready: "服务器尚未就绪。",
  problem_draining: "此服务器正在停止。",
  problem_overloaded: "服务器任务过多。",
  problem_no_decoder: "服务器暂时无法解码视频。",
  problem_deadline_exceeded: "处理超时。",
  problem_video_empty: "文件是空的。",
  problem_video_not_a_video: "该文件不是视频。",
  problem_video_no_video_stream: "文件中没有画面。",
  problem_video_unknown_codec: "无法识别视频的编码格式。",
  problem_video_encrypted: "视频已加密。",
  problem_video_zero_frames: "视频中没有可以解码的画面。",
  problem_video_damaged: "视频已损坏。",
  problem_video_truncated: "视频不完整（被截断）。",
  problem_video_wrong_count: "视频的实际帧数少于其声明的帧数。",
  problem_video_span_outside_video: "所选部分超出了视频范围。",
  problem_video_too_large: "视频画面过大。",
  problem_video_out_of_memory: "视频占用内存过多。",
  problem_video_timeout: "视频解码超时。",
  problem_video_crashed: "解码器在处理此视频时崩溃。",
};

export const TEXTS = { en: ENGLISH, zh: CHINESE };
const STORED = "ivcp-language";

let language = localStorage.getItem(STORED) ?? (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");
if (!(language in TEXTS)) language = "en";

/** Goes to the other language. */
export function switchLanguage() {
  language = language === "en" ? "zh" : "en";
  localStorage.setItem(STORED, language);
}

/** A text with its values filled in. */
export function text(name, values = {}) {
  return TEXTS[language][name].replace(/\{(\w+)\}/g, (_, key) => values[key]);
}

/** What went wrong, by the code of the API's answer. */
export function problemText(code, values) {
  return text(`problem_${code}` in TEXTS[language] ? `problem_${code}` : "problem", values);
}

/** Fills in every text that stands in the document. */
export function translateDocument() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = text(element.dataset.text);
}

/** 0.934 → "93.4%" */
export function percent(share) {
  return new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: 1 }).format(share);
}

/** 64.5 → "1:04.5" */
export function clock(seconds) {
  const tenths = Math.round(seconds * 10);
  return `${Math.floor(tenths / 600)}:${((tenths % 600) / 10).toFixed(1).padStart(4, "0")}`;
}

/** Bytes → "12.3 MB", of 10^6 bytes as the server counts them. */
export function fileSize(bytes) {
  const [size, unit] = bytes < 1e6 ? [Math.ceil(bytes / 1e3), "kB"] : [bytes / 1e6, "MB"];
  return `${new Intl.NumberFormat(language, { maximumFractionDigits: 1 }).format(size)} ${unit}`;
}
